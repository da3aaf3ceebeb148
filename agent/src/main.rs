//! The agent's program.

fn main() {
    signet_agent::launch::main_if_launcher();
}
