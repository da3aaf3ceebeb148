//! Following a task to its end.

use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Instant;

use ureq::http::Method;

use crate::api::TaskDetail;
use crate::client::{ClientError, parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::follow::{News, follow};
use crate::interrupt::Interrupt;
use crate::limits::{LOST_MAX, RECONNECT_FIRST, RECONNECT_MAX, TICK};
use crate::term::Look;
use crate::view::View;

/// Shows a task until every host is final; the first Ctrl-C cancels it.
///
/// # Errors
/// When the controller is away for long, or standard output can't be written to.
pub(crate) fn watch(context: &Context, task_id: &str, interrupt: &Interrupt) -> Result<Exit, Failure> {
    let path = format!("/api/tasks/{}", part(task_id));
    let detail: TaskDetail = parsed(&patiently(|| context.client.get(&path))?)?;
    let mut view = View::new(context.term, detail.targets);
    let followed = events(context, task_id, interrupt, &mut view);
    if followed.is_err() {
        view.clear();
    }
    let cancelled = followed?;
    let exit = if context.json() {
        view.clear();
        let mut all_well = true;
        let path = format!("/api/tasks/{}/results", part(task_id));
        context.client.list(&path, |row| {
            all_well &= row["state"] == "succeeded";
            context.print_json_line(&row)?;
            Ok::<_, Failure>(true)
        })?;
        if all_well { Exit::Success } else { Exit::SomeFailed }
    } else {
        view.finish(task_id)?
    };
    Ok(if cancelled { Exit::Interrupted } else { exit })
}

/// Asks again while the controller is away, as the live stream does: the task is there, and goes on.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let (began, mut pause) = (Instant::now(), RECONNECT_FIRST);
    loop {
        match ask() {
            Err(error) if error.passes() && began.elapsed() < LOST_MAX => thread::sleep(pause),
            done => return done,
        }
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Takes in what happens until all is over; says whether it was cancelled here.
fn events(context: &Context, task_id: &str, interrupt: &Interrupt, view: &mut View) -> Result<bool, Failure> {
    let news = follow(&context.client, task_id);
    let (mut cancelled, mut away) = (false, false);
    let mut ticked = Instant::now();
    // When the controller was last asked in vain to cancel.
    let mut asked: Option<Instant> = None;
    loop {
        if interrupt.pressed() && !cancelled && asked.is_none_or(|at| at.elapsed() >= RECONNECT_MAX) {
            let path = format!("/api/tasks/{}/cancel", part(task_id));
            match context.client.send(&Method::POST, &path, &[], None) {
                Ok(_) => {
                    cancelled = true;
                    let text = format!("cancelling on {} hosts; Ctrl-C again leaves them alone", view.open());
                    view.say(Look::Warn, &text);
                }
                // The wish stays: it is tried again until the controller is back.
                Err(error) if error.passes() => {
                    if asked.is_none() {
                        let text = format!("not cancelled yet: {error}; Ctrl-C again leaves the task alone");
                        view.say(Look::Warn, &text);
                    }
                    asked = Some(Instant::now());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            view.tick()?;
        }
        let one = match news.recv_timeout(TICK) {
            Ok(one) => one,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Err(gone(task_id)),
        };
        match one {
            News::State(target) => view.state(target),
            News::Output(piece) if !context.json() => view.output(&piece)?,
            News::Output(_) => {}
            News::Done => return Ok(cancelled),
            News::Lost(error) => return Err(error.into()),
            News::Away(error) => {
                if !std::mem::replace(&mut away, true) {
                    view.say(Look::Warn, &format!("{error}; the task goes on, waiting for the controller"));
                }
                continue;
            }
        }
        away = false;
    }
}

fn gone(task_id: &str) -> Failure {
    let why = format!("the live stream ended; the task goes on: signet task {task_id}");
    Failure::Client(ClientError::Malformed(why))
}
