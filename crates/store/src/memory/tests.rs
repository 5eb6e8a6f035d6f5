use super::*;

#[tokio::test]
async fn a_store_that_is_away_says_so_until_it_is_back() {
    let memory = MemoryStores::new();
    let stores = memory.stores();
    memory.go_away();
    let error = stores.config.heads().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    memory.come_back();
    stores.config.heads().await.unwrap();
}
