//! Invariant I9 on the pure core: two holders never both believe, whatever the order of sends, answers, delays, losses, clock
//! jumps and crashes, with a store that has a clock of its own.

use std::time::Duration;

use lockkeeper::Fence;
use lockkeeper::LostReason;
use lockkeeper::lease_core::{ClaimWon, Life, Moment, Phase, SendId, Timing};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const SKEW_MS: u64 = 200;
const REFRESH: Duration = Duration::from_millis(500);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const EXPIRATIONS: [u64; 3] = [2_000, 3_000, 9_000];
const PROCESSES: usize = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// Real time passes, in milliseconds. A process to which nothing happens meanwhile sleeps, or is suspended.
    Pass(u64),
    /// The store's clock stands so far ahead of its rate from now on, in milliseconds: at most the skew.
    Jump(u64),
    /// A process asks for the lease, refreshes it, or looks at the time.
    Act(usize),
    /// A process asks for another expiration.
    Extend(usize, usize),
    /// A process gives it back.
    Release(usize),
    /// A process is killed and starts anew.
    Crash(usize),
    /// A question that is on its way reaches the store.
    Arrive(usize),
    /// An answer that is on its way reaches its process.
    Answer(usize),
    /// A question or an answer is lost; its process may learn that.
    LoseQuestion(usize, bool),
    LoseAnswer(usize, bool),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Claim,
    Refresh,
    Release,
}

#[derive(Debug, Clone)]
struct Question {
    process: usize,
    /// Which acquisition of which process: the holder's id.
    holder: u64,
    send: SendId,
    kind: Kind,
    expiration: u64,
}

#[derive(Debug, Clone, Copy)]
enum Said {
    Ours(u64),
    Busy,
    Held,
    Lost,
}

struct Process {
    life: Life,
    holder: u64,
    claiming: bool,
    /// Of its clock, in thousandths above real time.
    rate: i64,
}

/// The store as its documentation says it is.
#[derive(Default)]
struct Store {
    holder: Option<u64>,
    token: u64,
    expires: u64,
    largest: u64,
}

struct World {
    real: u64,
    jump: u64,
    store: Store,
    store_rate: i64,
    processes: Vec<Process>,
    questions: Vec<Question>,
    answers: Vec<(Question, Said)>,
    holders: u64,
}

fn timing(expiration: u64) -> Timing {
    let expiration = Duration::from_millis(expiration);
    Timing::new(REFRESH, expiration, Duration::from_millis(SKEW_MS)).unwrap()
}

fn at_rate(real: u64, thousandths: i64) -> u64 {
    let gained = i128::from(real) * i128::from(thousandths) / 1_000;
    u64::try_from(i128::from(real) + gained).unwrap()
}

impl World {
    fn new(store_rate: i64, rates: [i64; PROCESSES], expiration: u64) -> Self {
        let mut world = Self {
            real: 1_000 * MS,
            jump: 0,
            store: Store::default(),
            store_rate,
            processes: Vec::new(),
            questions: Vec::new(),
            answers: Vec::new(),
            holders: 0,
        };
        for rate in rates {
            world.holders += 1;
            world.processes.push(Process {
                life: Life::new(timing(expiration), CALL_TIMEOUT),
                holder: world.holders,
                claiming: false,
                rate,
            });
        }
        world
    }

    fn now(&self, process: usize) -> Moment {
        Moment(at_rate(self.real, self.processes[process].rate))
    }

    fn store_now(&self) -> u64 {
        at_rate(self.real, self.store_rate) + self.jump
    }

    fn anew(&mut self, process: usize) {
        self.holders += 1;
        let timing = *self.processes[process].life.timing();
        let one = &mut self.processes[process];
        one.life = Life::new(timing, CALL_TIMEOUT);
        one.holder = self.holders;
        one.claiming = false;
    }

    fn ask(&mut self, process: usize, kind: Kind, send: SendId, expiration: u64) {
        let holder = self.processes[process].holder;
        self.questions.push(Question {
            process,
            holder,
            send,
            kind,
            expiration,
        });
    }

    fn step(&mut self, step: &Step) {
        let own = |n: usize| n % PROCESSES;
        match *step {
            Step::Pass(time) => self.real += time * MS,
            Step::Jump(to) => self.jump = to * MS,
            Step::Act(n) => self.act(own(n)),
            Step::Extend(n, to) => {
                let n = own(n);
                let (now, timing) = (self.now(n), timing(EXPIRATIONS[to % 3]));
                let life = &mut self.processes[n].life;
                if matches!(life.phase(), Phase::Held | Phase::Doubtful) {
                    life.extend(now, timing);
                }
            }
            Step::Release(n) => {
                let n = own(n);
                if self.processes[n].life.token().is_some() {
                    self.processes[n].life.release();
                    self.ask(n, Kind::Release, SendId(u64::MAX), 0);
                    self.anew(n);
                }
            }
            Step::Crash(n) => self.anew(own(n)),
            Step::Arrive(n) if !self.questions.is_empty() => {
                let question = self.questions.remove(n % self.questions.len());
                let said = self.decide(&question);
                self.answers.push((question, said));
            }
            Step::Answer(n) if !self.answers.is_empty() => {
                let (question, said) = self.answers.remove(n % self.answers.len());
                self.answered(&question, said);
            }
            Step::LoseQuestion(n, told) if !self.questions.is_empty() => {
                let question = self.questions.remove(n % self.questions.len());
                self.lost(&question, told);
            }
            Step::LoseAnswer(n, told) if !self.answers.is_empty() => {
                let (question, _) = self.answers.remove(n % self.answers.len());
                self.lost(&question, told);
            }
            _ => {}
        }
    }

    fn act(&mut self, n: usize) {
        let now = self.now(n);
        let one = &mut self.processes[n];
        one.life.tick(now);
        match one.life.phase() {
            Phase::Asked if !one.claiming => {
                let send = one.life.send_claim(now);
                one.claiming = true;
                let expiration = one.life.timing().expiration();
                let expiration = u64::try_from(expiration.as_millis()).unwrap();
                self.ask(n, Kind::Claim, send, expiration);
            }
            Phase::Held | Phase::Doubtful | Phase::Verifying => {
                if let Some((send, expiration)) = one.life.send_refresh(now) {
                    let expiration = u64::try_from(expiration.as_millis()).unwrap();
                    self.ask(n, Kind::Refresh, send, expiration);
                }
            }
            Phase::Lost(_) | Phase::Released => self.anew(n),
            _ => {}
        }
    }

    /// The store acts at an instant of its own choice, once it is asked.
    fn decide(&mut self, question: &Question) -> Said {
        let now = self.store_now();
        let expires = now + question.expiration * MS;
        let is_ours = self.store.holder == Some(question.holder);
        let is_held = self.store.holder.is_some() && now < self.store.expires;
        match question.kind {
            // It may or may not extend what is ours already: it does not.
            Kind::Claim if is_held && is_ours => Said::Ours(self.store.token),
            Kind::Claim if is_held => Said::Busy,
            Kind::Claim => {
                self.store.token += 1;
                assert!(self.store.token > self.store.largest);
                self.store.largest = self.store.token;
                self.store.holder = Some(question.holder);
                self.store.expires = expires;
                Said::Ours(self.store.token)
            }
            Kind::Refresh if is_held && is_ours => {
                self.store.expires = expires;
                Said::Held
            }
            Kind::Refresh => Said::Lost,
            Kind::Release => {
                if is_ours {
                    self.store.holder = None;
                }
                Said::Held
            }
        }
    }

    fn answered(&mut self, question: &Question, said: Said) {
        let n = question.process;
        let now = self.now(n);
        let one = &mut self.processes[n];
        if one.holder != question.holder {
            return;
        }
        match (question.kind, said) {
            (Kind::Claim, Said::Ours(token)) => {
                one.claiming = false;
                let won = one.life.claim_won(now, question.send, Fence(token));
                if won == ClaimWon::TooLate {
                    self.ask(n, Kind::Release, SendId(u64::MAX), 0);
                    self.anew(n);
                }
            }
            (Kind::Claim, _) => {
                one.claiming = false;
                one.life.claim_refused(question.send);
            }
            (Kind::Refresh, Said::Held) => {
                one.life.refresh_held(now, question.send);
            }
            (Kind::Refresh, _) => {
                one.life.refresh_lost(question.send, LostReason::Expired);
            }
            (Kind::Release, _) => {}
        }
    }

    /// A claim is only repeated when the first is given up; a refresh may be forgotten as well.
    fn lost(&mut self, question: &Question, told: bool) {
        let n = question.process;
        let now = self.now(n);
        let one = &mut self.processes[n];
        if one.holder != question.holder {
            return;
        }
        match question.kind {
            Kind::Claim => {
                one.claiming = false;
                one.life.claim_failed(question.send);
            }
            Kind::Refresh if told => {
                let fault = LostReason::Expired;
                one.life.refresh_failed(now, question.send, fault, false);
            }
            Kind::Refresh | Kind::Release => {}
        }
    }

    /// Claims that were given up may arrive all the same.
    fn give_up_claim(&mut self, n: usize) {
        let one = &mut self.processes[n];
        let pending = self
            .questions
            .iter()
            .find(|question| matches!(question.kind, Kind::Claim) && question.holder == one.holder);
        if let Some(question) = pending
            && one.claiming
        {
            one.claiming = false;
            one.life.claim_failed(question.send);
        }
    }

    fn believers(&self) -> Vec<usize> {
        let believes = |n: &usize| self.processes[*n].life.is_held(self.now(*n));
        (0..PROCESSES).filter(believes).collect()
    }

    /// Nobody believes in what the store would give to somebody else.
    fn check(&self) {
        let believers = self.believers();
        assert!(believers.len() <= 1, "{believers:?} all believe");
        if let [one] = believers.as_slice() {
            let is_free = self.store.holder.is_none() || self.store_now() >= self.store.expires;
            let is_theirs = self.store.holder == Some(self.processes[*one].holder);
            assert!(
                !is_free && is_theirs,
                "{one} believes in what is not its own"
            );
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = 0..64_usize;
    let step = prop_oneof![
        4 => prop_oneof![0..400_u64, 0..3_000_u64, Just(12_000)].prop_map(Step::Pass),
        1 => (0..=SKEW_MS).prop_map(Step::Jump),
        6 => one.clone().prop_map(Step::Act),
        1 => (one.clone(), one.clone()).prop_map(|(n, to)| Step::Extend(n, to)),
        1 => one.clone().prop_map(Step::Release),
        1 => one.clone().prop_map(Step::Crash),
        8 => one.clone().prop_map(Step::Arrive),
        8 => one.clone().prop_map(Step::Answer),
        1 => (one.clone(), any::<bool>()).prop_map(|(n, told)| Step::LoseQuestion(n, told)),
        1 => (one, any::<bool>()).prop_map(|(n, told)| Step::LoseAnswer(n, told)),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn i09_two_holders_never_both_believe(
        steps in steps(),
        // A clock and the store's differ by at most 1 %.
        store_rate in -5..=5_i64,
        rates in prop::array::uniform3(-5..=5_i64),
        expiration in prop::sample::select(EXPIRATIONS.to_vec()),
        give_up in prop::collection::vec(0..120_usize, 0..6),
    ) {
        let mut world = World::new(store_rate, rates, expiration);
        for (at, step) in steps.iter().enumerate() {
            if give_up.contains(&at) {
                world.give_up_claim(at % PROCESSES);
                world.check();
            }
            world.step(step);
            world.check();
        }
    }
}

/// The property is one that the model can break: a holder that reckons from the answer, and not from the send, is found out.
#[test]
fn i09_the_model_finds_a_holder_that_reckons_from_the_answer() {
    let mut world = World::new(0, [0; PROCESSES], EXPIRATIONS[0]);
    world.act(0);
    world.step(&Step::Arrive(0));
    // The answer takes as long as the lease lasts.
    world.real += 1_990 * MS;
    world.step(&Step::Answer(0));
    assert!(
        world.believers().is_empty(),
        "it counts from before the send"
    );
    world.real += 10 * MS;
    world.questions.clear(); // what it gives back late
    world.act(1);
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(0));
    assert_eq!(world.believers(), [1]);
}

#[test]
fn i09_a_shorter_expiration_that_may_still_arrive_bounds_what_is_believed() {
    let mut world = World::new(0, [0; PROCESSES], EXPIRATIONS[2]);
    world.act(0);
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(0));
    world.step(&Step::Extend(0, 0));
    world.act(0); // the short one, on its way
    world.step(&Step::Extend(0, 2));
    world.act(0); // the long one
    world.step(&Step::Arrive(1));
    world.step(&Step::Answer(0));
    world.step(&Step::Arrive(0)); // now the short one counts
    world.real += 1_800 * MS;
    assert!(world.believers().is_empty());
    world.real += 200 * MS;
    world.act(1);
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(1));
    world.check();
    assert_eq!(world.believers(), [1]);
}

#[test]
fn i09_an_older_answer_does_not_undo_a_newer_and_shorter_one() {
    let mut world = World::new(0, [0; PROCESSES], 3_000);
    world.act(0);
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(0));
    world.act(0); // a long one
    world.step(&Step::Arrive(0));
    world.step(&Step::Extend(0, 0));
    world.act(0); // a short one
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(1));
    world.step(&Step::Answer(0)); // the long one's answer comes last
    world.real += 1_990 * MS;
    world.check();
    assert!(world.believers().is_empty());
}

#[test]
fn i09_what_was_on_its_way_together_may_have_been_done_in_any_order() {
    let mut world = World::new(0, [0; PROCESSES], 9_000);
    world.act(0);
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(0));
    world.step(&Step::Extend(0, 0));
    world.act(0); // a short one
    world.step(&Step::Extend(0, 2));
    world.act(0); // a long one, sent later
    world.step(&Step::Arrive(1)); // and done first
    world.step(&Step::Arrive(0));
    world.step(&Step::Answer(1)); // the short one's answer comes first
    world.step(&Step::Answer(0));
    world.real += 2_100 * MS;
    world.check();
    assert!(world.believers().is_empty());
}

#[test]
fn i09_after_a_release_was_asked_for_no_refresh_is_sent_and_no_answer_counts() {
    let mut life = Life::new(timing(2_000), CALL_TIMEOUT);
    let now = Moment(MS);
    let claim = life.send_claim(now);
    assert_eq!(life.claim_won(now, claim, Fence(1)), ClaimWon::Held);
    let (refresh, _) = life.send_refresh(now).unwrap();
    life.release();
    assert_eq!(life.send_refresh(now), None);
    assert_eq!(life.refresh_held(now, refresh), None);
    assert!(!life.is_held(now));
    assert_eq!(life.next_deadline(), None);
    life.released();
    assert_eq!(life.send_refresh(now), None);
}

#[test]
fn i09_a_doubtful_lease_is_held_again_only_by_what_was_sent_after_the_error() {
    let mut life = Life::new(timing(9_000), CALL_TIMEOUT);
    let at = |millis: u64| Moment(millis * MS);
    let claim = life.send_claim(at(0));
    assert_eq!(life.claim_won(at(1), claim, Fence(1)), ClaimWon::Held);
    let (old, _) = life.send_refresh(at(500)).unwrap();
    let (failed, _) = life.send_refresh(at(1_000)).unwrap();
    life.refresh_failed(at(1_100), failed, LostReason::Expired, false);
    assert_eq!(*life.phase(), Phase::Doubtful);
    assert!(
        life.is_held(at(1_100)),
        "it is believed in until its deadline"
    );
    life.refresh_held(at(1_200), old);
    assert_eq!(
        *life.phase(),
        Phase::Doubtful,
        "that was before the store failed"
    );
    let (new, _) = life.send_refresh(at(1_500)).unwrap();
    life.refresh_held(at(1_600), new);
    assert_eq!(*life.phase(), Phase::Held);
}
