//! What went wrong with a component, in one word: why it did not answer, why a request of a hook brought nothing, and why a canary was
//! ended. Closed lists, which stand in rows.

use crate::words::words;

words! {
    /// Why a component did not answer: the field `fault` of its part of a row.
    FaultCode {
        Deadline, "deadline", "It ran too long.";
        Memory, "memory", "It wanted more memory than it may have.";
        Table, "table", "It wanted a larger table than it may have.";
        StackOverflow, "stack_overflow", "It recursed too deep.";
        Trap, "trap", "It stopped itself: a panic, an exception that nothing caught, a division by zero.";
        Garbage, "garbage", "It handed over values that the contract does not allow.";
        HostCalls, "host_calls", "It called the gateway too often.";
        TooMuchData, "too_much_data", "It handed over more bytes at once than the gateway copies.";
        Handles, "handles", "It held too many resources.";
        Random, "random", "It asked for too many random bytes at once.";
        Configure, "configure", "It refused a configuration that it took when it was admitted.";
        Revoked, "revoked", "It was revoked.";
        Absent, "absent", "It has a place in the bundle, and could not be put there.";
        Exhausted, "exhausted", "The gateway had no room for another component.";
        Over, "over", "The exchange had ended before: by a fault, a failure, or a call that was given up.";
        Counters, "counters", "Its counters could not be reached.";
        Worker, "worker", "The worker process that it ran in ended, did not answer, or sent what no worker sends.";
    }
}

words! {
    /// Why a request of a hook brought no answer: the field `fault` of an entry of `egress` in a row.
    EgressCode {
        NotGranted, "not_granted", "The hook has no grant of that name.";
        NotAllowed, "not_allowed", "The grant does not cover the method, the path or a header.";
        TooMany, "too_many", "The event has made as many requests as it may.";
        Unreachable, "unreachable", "There was no connection, or only to an address that may not be dialled. Nothing was sent.";
        TimedOut, "timed_out", "The answer did not come in time.";
        Closed, "closed", "The connection broke.";
        TooLarge, "too_large", "The request or the answer is larger than the grant allows.";
        Other, "other", "The gateway had no place for it, or the answer repeated the credential.";
    }
}

words! {
    /// Why a canary was ended by the gateway: the field `breach` of its row.
    BreachCode {
        Faults, "canary_faults", "It failed more often than its limits allow.";
        Refusals, "canary_refusals", "It refused more calls than what is in force.";
        Slow, "canary_slow", "It took longer than its limits allow, or several times as long as what is in force.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_word_stands_once_in_its_list_and_is_written_as_the_list_says() {
        fn check<T: Copy + serde::Serialize>(all: &[T], as_str: impl Fn(T) -> &'static str) {
            let words: BTreeSet<_> = all.iter().map(|it| as_str(*it)).collect();
            assert_eq!(words.len(), all.len());
            for it in all {
                assert_eq!(serde_json::to_value(it).unwrap(), as_str(*it));
            }
        }
        check(FaultCode::ALL, FaultCode::as_str);
        check(EgressCode::ALL, EgressCode::as_str);
        check(BreachCode::ALL, BreachCode::as_str);
    }
}
