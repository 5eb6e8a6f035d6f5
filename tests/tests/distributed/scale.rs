//! More workers, and fewer again, under load.

use fanfare_tests::server::Program;

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_out_and_in_repeats_nothing() {
    let mut stage = Stage::two_and_two().await;
    stage.trial.load().advances(200).await;
    assert_eq!(stage.fleet.stop(Program::Worker, 1).await.code, Some(0));
    // One worker is left; then three; then one.
    stage.trial.load().advances(200).await;
    stage.fleet.restart(Program::Worker, 1).await;
    let third = stage.fleet.add(Program::Worker).await;
    stage.trial.load().advances(300).await;
    for number in [0, third] {
        let exit = stage.fleet.stop(Program::Worker, number).await;
        assert_eq!(exit.code, Some(0), "{}", exit.log);
        stage.trial.load().advances(200).await;
    }
    stage.end().await.assert_clean(0);
}

/// They were given nothing yet, or are about to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_as_soon_as_it_came_repeats_nothing() {
    let mut stage = Stage::two_and_two().await;
    for further in [1, 50, 150] {
        for program in [Program::Router, Program::Worker] {
            let third = stage.fleet.add(program).await;
            stage.trial.load().advances(further).await;
            let exit = stage.fleet.stop(program, third).await;
            assert_eq!(exit.code, Some(0), "{}", exit.log);
            stage.trial.load().advances(200).await;
        }
    }
    stage.end().await.assert_clean(0);
}
