//! `SendDeviceCommand` and `SendDeviceCommands`: from the wire to the table of what waits, and back.
//!
//! The message of a rejected command begins with a stable code: `unknown_device` and `queue_full` may be otherwise a moment
//! later; `invalid_command`, `too_large` (for the device, as it is connected), `deadline_passed`, `through_gateway`, `without_token`
//! and `disabled_device` will not.

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tonic::Status;
use uuid::Uuid;

use super::gate::CallPermit;
use super::values::{device_id, json_of, struct_of, write_struct, write_texts};
use super::wire;
use crate::config::{COMMAND_DEADLINE_DEFAULT, COMMAND_DEADLINE_MAX, COMMANDS_PER_CALL_MAX};
use crate::event::{Event, METADATA_BYTES_MAX, check_event};
use crate::node::Node;
use crate::pipeline::clock::now_us;
use crate::pipeline::commands::{
    Command, CommandState, NotSent, Progress, Routes, STATES_PER_COMMAND_MAX,
};
use crate::pipeline::registry::Reachability;
use crate::pipeline::results::{REQUEST_ID_CHARS_MAX, is_request_id};

/// Sends one command and waits for its end.
///
/// # Errors
/// None of the command's: its end is the answer, whatever it is.
pub async fn send_one(
    node: &Node,
    command: wire::DeviceCommand,
) -> Result<wire::CommandResponse, Status> {
    let (listener, mut progress) = mpsc::channel(STATES_PER_COMMAND_MAX);
    if let Err(refused) = send(node, command, &listener, &mut Routes::default()) {
        return Ok(response(refused));
    }
    drop(listener);
    while let Some(heard) = progress.recv().await {
        if heard.state.is_end() {
            return Ok(response(wire_progress(heard)));
        }
    }
    Err(Status::internal("a command was let go without an end"))
}

/// Sends many commands; the stream ends when each has ended.
///
/// # Errors
/// `INVALID_ARGUMENT` for too many; then none was sent.
pub fn send_many(
    node: &Node,
    commands: Vec<wire::DeviceCommand>,
    permit: Option<CallPermit>,
) -> Result<impl Stream<Item = Result<wire::CommandProgress, Status>> + use<>, Status> {
    if commands.len() > COMMANDS_PER_CALL_MAX {
        return Err(Status::invalid_argument(format!(
            "{} commands, at most {COMMANDS_PER_CALL_MAX} are taken at a time; none was sent",
            commands.len()
        )));
    }
    let room = (commands.len() * STATES_PER_COMMAND_MAX).max(1);
    let (listener, progress) = mpsc::channel(room);
    let mut routes = Routes::default();
    let refused: Vec<_> = commands
        .into_iter()
        .filter_map(|command| send(node, command, &listener, &mut routes).err())
        .collect();
    // The channel closes when the last command has ended: each that waits holds an end of it.
    let heard = stream::unfold((progress, permit), async |(mut progress, permit)| {
        let next = progress.recv().await?;
        Some((wire_progress(next), (progress, permit)))
    });
    Ok(stream::iter(refused).chain(heard).map(Ok))
}

/// Hands a command to its device's connection; the error is its end.
fn send(
    node: &Node,
    command: wire::DeviceCommand,
    listener: &mpsc::Sender<Progress>,
    routes: &mut Routes,
) -> Result<(), wire::CommandProgress> {
    let (request_id, device) = (command.request_id.clone(), command.device_id.clone());
    let ended = |state, message: String| {
        node.commands.count(state);
        wire::CommandProgress {
            request_id: request_id.clone(),
            device_id: device.clone(),
            state: wire_state(state).into(),
            time_us: now_us(),
            message,
            ..wire::CommandProgress::default()
        }
    };
    let command = parse(command).map_err(|why| ended(CommandState::Rejected, why))?;
    let device_id = command.device_id;
    node.commands
        .send(command, listener, routes)
        .map_err(|why| match why {
            NotSent::Offline => match unreachable(node, device_id) {
                Some(never) => ended(CommandState::Rejected, never.to_owned()),
                None => ended(CommandState::Offline, why.to_string()),
            },
            NotSent::DeviceFull | NotSent::NodeFull | NotSent::ListenersFull => {
                ended(CommandState::Rejected, format!("queue_full: {why}"))
            }
        })
}

/// Why a device that is not connected will not be either; none where it may.
fn unreachable(node: &Node, device_id: Uuid) -> Option<&'static str> {
    match node.registry.reachability(device_id) {
        Reachability::ByItself => None,
        Reachability::ThroughGateway => Some(
            "through_gateway: the device speaks through its gateway only, and a COMMAND names no device: send it to the gateway, with the \
             device in its parameters",
        ),
        Reachability::WithoutToken => {
            Some("without_token: the device has no token, so it cannot connect")
        }
        Reachability::Disabled => Some("disabled_device: the device is disabled"),
        Reachability::Unknown => Some("unknown_device: there is no such device"),
    }
}

fn parse(command: wire::DeviceCommand) -> Result<Command, String> {
    let device_id = device_id(&command.device_id)
        .ok_or_else(|| "invalid_command: device_id is not a UUID".to_owned())?;
    let request_id = match command.request_id.as_str() {
        "" => Uuid::new_v4().to_string(),
        given if is_request_id(given) => given.to_owned(),
        _ => {
            return Err(format!(
                "invalid_command: request_id has more than {REQUEST_ID_CHARS_MAX} characters, or control characters"
            ));
        }
    };
    let mut params = Vec::new();
    match &command.typed_params {
        Some(typed) => write_struct(typed, &mut params)
            .map_err(|_| "invalid_command: typed_params are nested too deep".to_owned())?,
        None => write_texts(&command.params, &mut params),
    }
    // The rules of an event's type and metadata: what they take, a COMMAND can say in both forms of the protocol.
    let as_event = Event {
        time_us: None,
        event_type: &command.command_type,
        value: None,
        unit: None,
        metadata: Some(&params),
        device_id: None,
    };
    check_event(&as_event, 0, 0).map_err(|code| match code.as_str() {
        "bad_type" => "invalid_command: command_type must have 1 to 50 characters, none of them control".to_owned(),
        _ => format!(
            "invalid_command: the parameters have more than {METADATA_BYTES_MAX} bytes, are nested too deep, or hold what JSON cannot"
        ),
    })?;
    let now = now_us();
    let (deadline_us, wait) = match command.deadline_us {
        0 => {
            let wait_us = i64::try_from(COMMAND_DEADLINE_DEFAULT.as_micros()).unwrap_or(i64::MAX);
            (now.saturating_add(wait_us), COMMAND_DEADLINE_DEFAULT)
        }
        deadline_us => {
            let left_us = u64::try_from(deadline_us.saturating_sub(now)).unwrap_or(0);
            (deadline_us, Duration::from_micros(left_us))
        }
    };
    if wait.is_zero() {
        return Err("deadline_passed: the deadline had passed before anything was sent".to_owned());
    }
    Ok(Command {
        device_id,
        request_id: request_id.into(),
        command_type: command.command_type,
        params,
        deadline_us,
        deadline: Instant::now() + wait.min(COMMAND_DEADLINE_MAX),
    })
}

fn response(end: wire::CommandProgress) -> wire::CommandResponse {
    wire::CommandResponse {
        success: end.state() == wire::CommandState::Succeeded,
        message: end.message,
        request_id: end.request_id,
        state: end.state,
        status: end.status,
        data: end.data,
    }
}

fn wire_progress(progress: Progress) -> wire::CommandProgress {
    wire::CommandProgress {
        request_id: progress.request_id.to_string(),
        device_id: progress.device_id.to_string(),
        state: wire_state(progress.state).into(),
        time_us: progress.time_us,
        message: progress.message,
        status: u32::try_from(progress.status).unwrap_or(u32::MAX),
        data: progress
            .data
            .and_then(|data| json_of(&data))
            .and_then(struct_of),
    }
}

fn wire_state(state: CommandState) -> wire::CommandState {
    match state {
        CommandState::Sent => wire::CommandState::Sent,
        CommandState::Delivered => wire::CommandState::Delivered,
        CommandState::Succeeded => wire::CommandState::Succeeded,
        CommandState::Failed => wire::CommandState::Failed,
        CommandState::Offline => wire::CommandState::Offline,
        CommandState::TimedOut => wire::CommandState::TimedOut,
        CommandState::Rejected => wire::CommandState::Rejected,
    }
}
