//! Gates between the statements of the queue's functions: where the test can hold a call while others go on.

use std::fmt::Write;

/// Holds the call at the gate that was chosen for this session's next call, until the test opens it.
pub(crate) const GATE: &str = "
    create schema gate;
    create function gate.pass(v_function text) returns boolean language plpgsql as $$
    declare
      v_passed int;
    begin
      if coalesce(current_setting('gate.stop', true), '') = '' then
        return true;
      end if;
      if current_setting('gate.within') not in ('', v_function) then
        return true;
      end if;
      v_passed := current_setting('gate.passed')::int + 1;
      perform set_config('gate.passed', v_passed::text, false);
      if v_passed = current_setting('gate.stop')::int then
        perform pg_advisory_lock_shared(1, pg_backend_pid());
        perform pg_advisory_unlock_shared(1, pg_backend_pid());
      end if;
      return true;
    end
    $$;
";

/// The functions that get gates.
pub(crate) const GATED: [&str; 10] =
    ["claim", "look", "hold_ready", "split", "settle", "shorten", "give_back", "give_back_all", "trim", "keep_stuck"];

/// Puts a gate before every statement of a function, given its name and definition.
pub(crate) fn with_gates(function: &str, definition: &str) -> String {
    let mut gated = String::new();
    let mut in_body = false;
    let mut starts = false; // a statement starts with the next line
    for line in definition.lines() {
        let code = line.split("--").next().unwrap_or(line).trim();
        let follows = ["else", "elsif", "end", "exception", "get", "when"]
            .iter()
            .any(|word| code.split([' ', ';']).next() == Some(word));
        if in_body && starts && !code.is_empty() && !follows {
            // Leaves FOUND and the row count as they are.
            writeln!(gated, "if gate.pass('{function}') then end if;").unwrap();
        }
        gated.push_str(line);
        gated.push('\n');
        in_body |= code == "begin";
        if !code.is_empty() {
            starts = ["begin", "then", "else", "loop"].contains(&code.rsplit(' ').next().unwrap_or(""))
                || code.ends_with(';');
        }
    }
    gated
}
