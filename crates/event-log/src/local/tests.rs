use fanfare_domain::ShardSet;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

fn spans(count: u16) -> Vec<Span> {
    let span = |index| Span {
        index,
        shards: ShardSet::try_new(index, count).unwrap(),
    };
    (0..count).map(span).collect()
}

struct World {
    groups: LocalGroups,
    spans: Vec<Span>,
}

impl World {
    fn new(count: u16) -> Self {
        Self {
            groups: LocalGroups::new(DEADLINE),
            spans: spans(count),
        }
    }

    fn join(&self) -> Member {
        let group = Group::new("router");
        self.groups.join(Stream::Events, &group, &self.spans)
    }
}

/// What `member` can take now, without waiting.
async fn taken(member: &mut Member) -> Vec<Hold> {
    let mut holds = Vec::new();
    while let Ok(Some(hold)) = tokio::time::timeout(Duration::ZERO, member.next()).await {
        holds.push(hold);
    }
    holds
}

fn indexes(holds: &[Hold]) -> Vec<u16> {
    holds.iter().map(|h| h.lease().span.index).collect()
}

fn phases(holds: &[Hold]) -> Vec<Phase> {
    holds.iter().map(|h| h.lease().phase()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_member_gets_every_span() {
    let world = World::new(4);
    let mut member = world.join();
    assert_eq!(indexes(&taken(&mut member).await), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_second_member_waits_until_the_first_lets_go() {
    let world = World::new(4);
    let mut first = world.join();
    let mut holds = taken(&mut first).await;
    let mut second = world.join();
    assert_eq!(
        phases(&holds),
        [Phase::Held, Phase::Held, Phase::Revoking, Phase::Revoking]
    );
    assert!(taken(&mut second).await.is_empty());
    assert!(world.groups.is_good(holds[3].lease()), "revoked, not lost");
    let gone = holds.pop().unwrap();
    let lease = gone.lease().clone();
    drop(gone);
    assert_eq!(lease.phase(), Phase::Lost);
    let moved = taken(&mut second).await;
    assert_eq!(indexes(&moved), [3]);
    assert!(moved[0].lease().epoch > lease.epoch);
    assert!(!world.groups.is_good(&lease));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_does_not_let_go_loses_the_lease_at_the_deadline() {
    let world = World::new(2);
    let mut first = world.join();
    let holds = taken(&mut first).await;
    let mut second = world.join();
    let started = Instant::now();
    let moved = second.next().await.unwrap();
    assert_eq!(moved.lease().span.index, 1);
    assert_eq!(phases(&holds), [Phase::Held, Phase::Lost]);
    assert!(!holds[1].lease().tenure.is_current());
    assert!(started.elapsed() >= DEADLINE);
    assert_eq!(world.groups.while_good(holds[1].lease(), || 1), None);
    drop(holds);
    assert!(
        world.groups.is_good(moved.lease()),
        "a late drop of the old hold leaves the new lease alone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_nobody_took_up_moves_at_once() {
    let world = World::new(2);
    let mut first = world.join();
    let mut second = world.join();
    assert_eq!(indexes(&taken(&mut second).await), [1]);
    assert_eq!(indexes(&taken(&mut first).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn more_members_than_spans_leaves_some_waiting() {
    let world = World::new(1);
    let (mut first, mut second) = (world.join(), world.join());
    let holds = taken(&mut first).await;
    assert_eq!(indexes(&holds), [0]);
    assert!(taken(&mut second).await.is_empty());
    drop(first);
    assert_eq!(phases(&holds), [Phase::Revoking]);
    drop(holds);
    assert_eq!(indexes(&taken(&mut second).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn leaving_waits_for_what_is_held() {
    let world = World::new(2);
    let mut member = world.join();
    let holds = taken(&mut member).await;
    let lease = holds[0].lease().clone();
    let holder = tokio::spawn(async move {
        holds[0].lease().reached(Phase::Revoking).await;
        tokio::time::sleep(DEADLINE / 2).await;
        drop(holds);
    });
    member.leave().await;
    assert!(holder.is_finished(), "leave came back too early");
    assert_eq!(lease.phase(), Phase::Lost);
    assert!(member.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn leaving_gives_up_on_a_frozen_holder() {
    let world = World::new(1);
    let mut member = world.join();
    let holds = taken(&mut member).await;
    member.leave().await;
    assert_eq!(phases(&holds), [Phase::Lost]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_away_is_granted_anew() {
    let world = World::new(1);
    let mut member = world.join();
    let old = member.next().await.unwrap();
    world.groups.lose(old.lease());
    assert_eq!(old.lease().phase(), Phase::Lost);
    let new = member.next().await.unwrap();
    assert!(new.lease().epoch > old.lease().epoch);
    assert!(world.groups.is_good(new.lease()));
}

#[tokio::test(start_paused = true)]
async fn reset_ends_members_and_leases_but_not_epochs() {
    let world = World::new(1);
    let mut member = world.join();
    let old = member.next().await.unwrap();
    world.groups.reset(|| ());
    assert!(member.next().await.is_none());
    let mut again = world.join();
    let new = again.next().await.unwrap();
    drop((old, member));
    assert!(world.groups.is_good(new.lease()));
    world.groups.close();
    assert!(again.next().await.is_none());
    assert!(world.join().next().await.is_none());
    assert!(!world.groups.is_good(new.lease()));
}

#[tokio::test(start_paused = true)]
async fn groups_and_streams_do_not_share_leases() {
    let world = World::new(1);
    let mut router = world.join();
    let other = Group::new("audit");
    let mut audit = world.groups.join(Stream::Events, &other, &world.spans);
    let mut worker = world
        .groups
        .join(Stream::Deliveries, &Group::new("router"), &world.spans);
    for member in [&mut router, &mut audit, &mut worker] {
        assert_eq!(indexes(&taken(member).await), [0]);
    }
}

proptest::proptest! {
    /// Whatever joins, leaves, takes, lets go and is late: one good lease per span at most, and
    /// once everybody is polite every member has its fair share.
    #[test]
    fn at_most_one_good_lease_per_span(
        count in proptest::sample::select(vec![1u16, 2, 4, 8]),
        steps in proptest::collection::vec((0u8..5, 0usize..4), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run_steps(count, steps));
    }
}

async fn run_steps(count: u16, steps: Vec<(u8, usize)>) {
    let world = World::new(count);
    let mut members: Vec<(Member, Vec<Hold>)> = Vec::new();
    for (step, which) in steps {
        if step == 0 && members.len() < 4 {
            members.push((world.join(), Vec::new()));
        }
        if which >= members.len() {
            continue;
        }
        match step {
            1 => drop(members.swap_remove(which)),
            2 => {
                let (member, holds) = &mut members[which];
                holds.extend(taken(member).await);
            }
            3 => members[which]
                .1
                .retain(|h| h.lease().phase() == Phase::Held),
            _ => tokio::time::advance(DEADLINE / 2).await,
        }
        let good = members.iter().flat_map(|(_, holds)| holds);
        let mut good: Vec<_> = good
            .filter(|h| world.groups.is_good(h.lease()))
            .map(|h| h.lease().span.index)
            .collect();
        good.sort_unstable();
        let all = good.len();
        good.dedup();
        assert_eq!(all, good.len(), "two good leases for one span");
    }
    for _ in 0..2 {
        for (member, holds) in &mut members {
            holds.retain(|h| h.lease().phase() == Phase::Held);
            holds.extend(taken(member).await);
        }
    }
    let shares: Vec<_> = members.iter().map(|(_, holds)| holds.len()).collect();
    if !members.is_empty() {
        assert_eq!(shares.iter().sum::<usize>(), usize::from(count));
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "unfair: {shares:?}");
    }
}
