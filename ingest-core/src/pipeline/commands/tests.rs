use super::*;
use crate::pipeline::live::Protocol;

const DEVICE: Uuid = Uuid::from_u128(1);
const FAR: Duration = Duration::from_secs(3600);

fn commands() -> Arc<Commands> {
    Arc::new(Commands::new(Arc::default()))
}

fn command(request_id: &str, wait: Duration) -> Command {
    Command {
        device_id: DEVICE,
        request_id: request_id.into(),
        command_type: "open".to_owned(),
        params: vec![0x80],
        deadline_us: 0,
        deadline: Instant::now() + wait,
    }
}

fn connect(commands: &Arc<Commands>, device_id: Uuid) -> CommandLink {
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        protocol: Protocol::Hdp,
    };
    commands.connect(device_id, peer)
}

/// In a call of its own.
fn send(
    commands: &Commands,
    command: Command,
    listener: &mpsc::Sender<Progress>,
) -> Result<(), NotSent> {
    commands.send(command, listener, &mut Routes::default())
}

/// One caller's ear.
struct Caller {
    listener: mpsc::Sender<Progress>,
    heard: mpsc::Receiver<Progress>,
}

impl Caller {
    fn new() -> Self {
        let (listener, heard) = mpsc::channel(STATES_PER_COMMAND_MAX * 100);
        Self { listener, heard }
    }

    fn send(&self, commands: &Commands, request_id: &str) -> Result<(), NotSent> {
        send(commands, command(request_id, FAR), &self.listener)
    }

    /// What it has heard since it was asked last.
    fn states(&mut self) -> Vec<(String, CommandState)> {
        std::iter::from_fn(|| self.heard.try_recv().ok())
            .map(|progress| (progress.request_id.to_string(), progress.state))
            .collect()
    }

    fn states_of_one(&mut self) -> Vec<CommandState> {
        self.states().into_iter().map(|(_, state)| state).collect()
    }
}

fn outcome(request_id: &str, status: u64) -> Outcome<'_> {
    Outcome {
        request_id,
        status,
        message: None,
        data: None,
        is_data_left_out: false,
    }
}

/// The connection writes everything that waits.
fn write_all(link: &CommandLink) -> Vec<String> {
    std::iter::from_fn(|| link.try_next())
        .map(|command| {
            link.note_delivered(&command.request_id);
            command.request_id.to_string()
        })
        .collect()
}

#[test]
fn a_command_is_sent_delivered_and_done() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let mut caller = Caller::new();
    caller.send(&commands, "a").unwrap();
    assert_eq!(caller.states_of_one(), [CommandState::Sent]);
    assert_eq!(write_all(&link), ["a"]);
    assert!(link.complete(&outcome("a", 0)));
    let expected = [CommandState::Delivered, CommandState::Succeeded];
    assert_eq!(caller.states_of_one(), expected);
    assert_eq!(commands.num_waiting(), 0);
}

#[test]
fn what_will_never_be_written_is_rejected_and_so_it_stays() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let mut caller = Caller::new();
    caller.send(&commands, "a").unwrap();
    assert!(link.has_next());
    let taken = link.try_next().unwrap();
    assert!(!link.has_next());
    link.reject(&taken.request_id, "too_large: more than it takes");
    let expected = [CommandState::Sent, CommandState::Rejected];
    assert_eq!(caller.states_of_one(), expected);
    assert_eq!(commands.num_waiting(), 0);
    caller.send(&commands, "a").unwrap();
    assert_eq!(caller.states_of_one(), [CommandState::Rejected]);
}

#[test]
fn commands_are_written_in_the_order_in_which_they_came() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let caller = Caller::new();
    for request_id in ["c", "a", "b"] {
        caller.send(&commands, request_id).unwrap();
    }
    assert_eq!(write_all(&link), ["c", "a", "b"]);
}

#[test]
fn a_device_that_is_not_connected_is_offline() {
    let commands = commands();
    let caller = Caller::new();
    assert_eq!(caller.send(&commands, "a"), Err(NotSent::Offline));
    drop(connect(&commands, DEVICE));
    assert_eq!(caller.send(&commands, "a"), Err(NotSent::Offline));
    assert_eq!(commands.peer_of(DEVICE), None);
}

#[test]
fn once_a_command_of_a_call_was_not_taken_the_later_ones_are_not_either() {
    let commands = commands();
    let caller = Caller::new();
    let mut routes = Routes::default();
    let mut send = |id: &str| commands.send(command(id, FAR), &caller.listener, &mut routes);
    assert_eq!(send("a"), Err(NotSent::Offline));
    let link = connect(&commands, DEVICE);
    assert_eq!(send("b"), Err(NotSent::Offline), "it would overtake a");
    assert_eq!(write_all(&link), [""; 0]);
    caller.send(&commands, "of another call").unwrap();

    let mut routes = Routes::default();
    let mut send = |id: &str| commands.send(command(id, FAR), &caller.listener, &mut routes);
    assert_eq!(send("c"), Ok(()));
    drop(link);
    let _newer = connect(&commands, DEVICE);
    assert_eq!(send("d"), Err(NotSent::Offline), "c was not written");
}

#[test]
fn a_result_that_is_early_late_double_or_for_another_changes_nothing() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let other = connect(&commands, Uuid::from_u128(2));
    let mut caller = Caller::new();
    caller.send(&commands, "a").unwrap();
    assert!(!link.complete(&outcome("a", 0)), "it was not written yet");
    assert_eq!(write_all(&link), ["a"]);
    assert!(!link.complete(&outcome("b", 0)), "nobody sent it");
    assert!(!other.complete(&outcome("a", 0)), "it was another's");
    assert!(link.complete(&outcome("a", 4)));
    assert!(!link.complete(&outcome("a", 0)), "it had ended");
    let expected = [
        CommandState::Sent,
        CommandState::Delivered,
        CommandState::Failed,
    ];
    assert_eq!(caller.states_of_one(), expected);
}

#[test]
fn a_connection_that_ends_says_what_was_sent_and_what_was_not() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let mut caller = Caller::new();
    for request_id in ["delivered", "begun", "unwritten"] {
        caller.send(&commands, request_id).unwrap();
    }
    let first = link.try_next().unwrap();
    link.note_delivered(&first.request_id);
    link.try_next().unwrap();
    caller.states();
    drop(link);
    let mut ends = caller.states();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("begun", CommandState::Failed),
        ("delivered", CommandState::Failed),
        ("unwritten", CommandState::Offline),
    ];
    assert_eq!(ends, expected.map(|(id, state)| (id.to_owned(), state)));
    assert_eq!(commands.num_waiting(), 0);
}

#[test]
fn the_end_of_an_older_connection_leaves_the_newer_one_alone() {
    let commands = commands();
    let older = connect(&commands, DEVICE);
    let newer = connect(&commands, DEVICE);
    drop(older);
    Caller::new().send(&commands, "a").unwrap();
    assert_eq!(write_all(&newer), ["a"]);
}

#[test]
fn a_command_asked_for_again_is_not_sent_again() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let (mut first, mut second, mut third) = (Caller::new(), Caller::new(), Caller::new());
    first.send(&commands, "a").unwrap();
    assert_eq!(write_all(&link), ["a"]);
    second.send(&commands, "a").unwrap();
    assert_eq!(write_all(&link), [""; 0]);
    assert!(link.complete(&outcome("a", 0)));
    third.send(&commands, "a").unwrap();
    assert_eq!(write_all(&link), [""; 0]);
    let all = [
        CommandState::Sent,
        CommandState::Delivered,
        CommandState::Succeeded,
    ];
    assert_eq!(first.states_of_one(), all);
    assert_eq!(second.states_of_one(), all);
    assert_eq!(third.states_of_one(), [CommandState::Succeeded]);
}

#[test]
fn what_waits_for_a_device_and_who_waits_for_a_command_are_bounded() {
    let commands = commands();
    let _link = connect(&commands, DEVICE);
    let caller = Caller::new();
    for number in 0..COMMANDS_PER_DEVICE_MAX {
        caller.send(&commands, &number.to_string()).unwrap();
    }
    assert_eq!(caller.send(&commands, "one more"), Err(NotSent::DeviceFull));
    let callers: Vec<_> = (0..LISTENERS_PER_COMMAND_MAX)
        .map(|_| Caller::new())
        .collect();
    for caller in callers.iter().skip(1) {
        caller.send(&commands, "0").unwrap();
    }
    let refused = callers.first().unwrap().send(&commands, "0");
    assert_eq!(refused, Err(NotSent::ListenersFull));
    drop(callers);
    Caller::new().send(&commands, "0").unwrap();
}

#[test]
fn what_waits_on_a_node_is_bounded() {
    let commands = commands();
    let caller = Caller::new();
    let links: Vec<_> = (0..=COMMANDS_MAX / COMMANDS_PER_DEVICE_MAX)
        .map(|number| connect(&commands, Uuid::from_u128(number as u128)))
        .collect();
    let mut num_taken = 0;
    for (number, _) in links.iter().enumerate() {
        for request in 0..COMMANDS_PER_DEVICE_MAX {
            let command = Command {
                device_id: Uuid::from_u128(number as u128),
                ..command(&request.to_string(), FAR)
            };
            match send(&commands, command, &caller.listener) {
                Ok(()) => num_taken += 1,
                Err(refused) => assert_eq!(refused, NotSent::NodeFull),
            }
        }
    }
    assert_eq!(num_taken, COMMANDS_MAX);
    drop(links);
    assert_eq!(commands.num_waiting(), 0);
}

#[test]
fn a_deadline_ends_what_waits_and_keeps_an_unwritten_command_from_being_written() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let mut caller = Caller::new();
    let soon = Duration::from_secs(5);
    for request_id in ["soon", "sooner"] {
        let command = command(request_id, soon);
        send(&commands, command, &caller.listener).unwrap();
    }
    caller.send(&commands, "later").unwrap();
    let next = commands.expire(Instant::now());
    assert!(next <= Instant::now() + soon);
    caller.states();
    let next = commands.expire(Instant::now() + soon);
    assert!(next > Instant::now() + soon);
    let expected = ["soon", "sooner"].map(|id| (id.to_owned(), CommandState::TimedOut));
    assert_eq!(caller.states(), expected);
    assert_eq!(write_all(&link), ["later"]);
    assert!(!link.complete(&outcome("soon", 0)), "it is late");
}

#[tokio::test]
async fn deadlines_are_kept_by_themselves_whatever_comes_first() {
    let commands = commands();
    let _link = connect(&commands, DEVICE);
    let keeping = Arc::clone(&commands);
    let keeping = tokio::spawn(async move { keeping.keep_deadlines().await });
    let mut caller = Caller::new();
    caller.send(&commands, "far").unwrap();
    tokio::task::yield_now().await;
    let near = command("near", Duration::from_millis(20));
    send(&commands, near, &caller.listener).unwrap();
    let mut ends = Vec::new();
    while ends.is_empty() {
        let heard = caller.heard.recv().await.unwrap();
        ends.extend(heard.state.is_end().then_some(heard));
    }
    let end = ends.pop().unwrap();
    assert_eq!(
        (&*end.request_id, end.state),
        ("near", CommandState::TimedOut)
    );
    keeping.abort();
}

#[tokio::test]
async fn a_connection_that_waits_is_woken_by_a_command() {
    let commands = commands();
    let link = connect(&commands, DEVICE);
    let waiting = tokio::spawn(async move { link.next().await.request_id });
    tokio::task::yield_now().await;
    Caller::new().send(&commands, "a").unwrap();
    assert_eq!(&*waiting.await.unwrap(), "a");
}
