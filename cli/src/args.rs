//! The command line as a whole.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    agents, approval_rules, approvals, approver_keys, audit, cancel, completions, deploy, deployments,
    doctor, job, join_command, keys, output, pause, repositories, results, run, servers, task, tasks, up,
    verify,
};
use crate::context::{Context, Format, Global};
use crate::exit::{Exit, Failure};

/// Signet, a fleet control plane: signed commands to every host and back.
///
/// Exit codes: 0 it worked (on every host), 1 some host failed, 2 bad usage, 3 the controller is away or refuses,
/// 4 not every host has answered yet, 130 ended by Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "signet", version, about)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Run(Box<run::Run>),
    Servers(servers::Servers),
    Tasks(tasks::Tasks),
    Task(task::Task),
    Results(results::Results),
    Output(output::Output),
    Cancel(cancel::Cancel),
    Deploy(Box<deploy::Deploy>),
    Job(job::Job),
    Deployments(deployments::Deployments),
    Repositories(repositories::Repositories),
    Pause(pause::Pause),
    Doctor(doctor::Doctor),
    Agents(agents::Agents),
    Audit(Box<audit::Audit>),
    Keys(keys::Keys),
    Approvals(approvals::Approvals),
    Approve(approvals::Approve),
    Refuse(approvals::Refuse),
    ApproverKeys(approver_keys::ApproverKeys),
    ApprovalRules(approval_rules::ApprovalRules),
    JoinCommand(join_command::JoinCommand),
    JoinTokens(join_command::JoinTokens),
    Verify(verify::Verify),
    Completions(completions::Completions),
}

impl CommandLine {
    /// Does what it says.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        // Those that ask no controller need neither its address nor a token.
        let context = || Context::new(&self.global);
        match self.command {
            Command::Up(up) => up.run(),
            Command::Completions(completions) => completions.run(&mut Self::command()),
            Command::Verify(verify) => verify.run(self.global.output == Format::Json),
            Command::Run(run) => run.run(&context()?),
            Command::Servers(servers) => servers.run(&context()?),
            Command::Tasks(tasks) => tasks.run(&context()?),
            Command::Task(task) => task.run(&context()?),
            Command::Results(results) => results.run(&context()?),
            Command::Output(output) => output.run(&context()?),
            Command::Cancel(cancel) => cancel.run(&context()?),
            Command::Deploy(deploy) => deploy.run(&context()?),
            Command::Job(job) => job.run(&context()?),
            Command::Deployments(deployments) => deployments.run(&context()?),
            Command::Repositories(repositories) => repositories.run(&context()?),
            Command::Pause(pause) => pause.run(&context()?),
            Command::Doctor(doctor) => doctor.run(&context()?),
            Command::Agents(agents) => agents.run(&context()?),
            Command::Audit(audit) if audit.is_offline() => audit.offline(self.global.output == Format::Json),
            Command::Audit(audit) => audit.run(&context()?),
            Command::Keys(keys) => keys.run(&context()?),
            Command::Approvals(approvals) => approvals.run(&context()?),
            Command::Approve(approve) => approve.run(&context()?),
            Command::Refuse(refuse) => refuse.run(&context()?),
            Command::ApproverKeys(keys) => keys.run(&context()?),
            Command::ApprovalRules(rules) => rules.run(&context()?),
            Command::JoinCommand(join) => join.run(&self.global.url, &context()?),
            Command::JoinTokens(tokens) => tokens.run(&context()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
