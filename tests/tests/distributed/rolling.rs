//! A rolling restart of everything under load: nothing is lost, and nothing is repeated.

use fanfare_tests::server::Program;

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_repeats_nothing() {
    let mut stage = Stage::two_and_two().await;
    for program in [Program::Router, Program::Worker] {
        for number in 0..2 {
            stage.trial.load().advances(200).await;
            let exit = stage.fleet.stop(program, number).await;
            assert_eq!(exit.code, Some(0), "{}", exit.log);
            stage.spread();
            stage.trial.load().advances(200).await;
            stage.fleet.restart(program, number).await;
            stage.spread();
        }
    }
    stage.trial.load().advances(200).await;
    stage.end().await.assert_clean(0);
}
