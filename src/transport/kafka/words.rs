//! Kafka's errors as people want to read them: what happened, and what to do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What was being done, as in "reading the topic strand-input".
pub fn explain(doing: &str, error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => explain_code(doing, code),
        None => format!("{doing}: {error}"),
    }
}

/// As [`explain`], from the bare code.
pub fn explain_code(doing: &str, code: Code) -> String {
    let advice = match code {
        Code::TopicAuthorizationFailed => {
            "the broker does not allow it (topic authorization failed): give this user READ and DESCRIBE on the input, \
             READ, WRITE and DESCRIBE on the changelog, WRITE and DESCRIBE on output and dead letters"
        }
        Code::GroupAuthorizationFailed => {
            "the broker does not allow it (group authorization failed): give this user READ on the group"
        }
        Code::ClusterAuthorizationFailed => {
            "the broker does not allow it (cluster authorization failed): give this user IDEMPOTENT_WRITE on the \
             cluster (needed before Kafka 2.8), or create the topics yourself"
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            "the topic, or this partition of it, does not exist (any more)"
        }
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut | Code::RequestTimedOut => {
            "no broker answers"
        }
        Code::MessageTimedOut => "the broker acknowledged nothing for message.timeout.ms",
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "the broker refuses the credentials: check sasl.mechanism, sasl.username and sasl.password"
        }
        Code::SSL => "TLS could not be agreed on: check security.protocol and ssl.ca.location",
        Code::MessageSizeTooLarge => "the broker refuses a record for its size (max.message.bytes)",
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            "too few replicas are in sync (min.insync.replicas): brokers are down"
        }
        Code::PolicyViolation => "a policy of the broker forbids it",
        Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress => {
            "the group is being shared out anew"
        }
        _ => return format!("{doing}: {code}"),
    };
    format!("{doing}: {advice} ({code})")
}

/// A complaint of librdkafka's in words, where it has advice of ours.
pub fn explain_complaint(brokers: &str, complaint: &str) -> String {
    let lower = complaint.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let advice = if has(&[
        "ssl handshake",
        "ssl_handshake",
        "certificate",
        "wrong version number",
        "ssl connection closed",
    ]) {
        "TLS could not be agreed on; check security.protocol (does this port speak TLS?), ssl.ca.location, \
         ssl.certificate.location and the host name in the certificate"
    } else if has(&["sasl", "authentication"]) {
        "the broker refuses the credentials or the mechanism; check security.protocol, sasl.mechanism, sasl.username \
         and sasl.password"
    } else if has(&["connection refused", "failed to resolve", "timed out", "brokers are down"]) {
        "no broker answers; check kafka.brokers, and that the broker advertises an address which this machine reaches"
    } else if has(&["disconnected while requesting apiversion", "disconnected"]) {
        "the broker hangs up; check security.protocol (does this port want TLS or SASL?)"
    } else {
        return format!("{brokers}: librdkafka says: {complaint}");
    };
    format!("{brokers}: {advice}. librdkafka says: {complaint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_come_with_advice_and_word_for_word() {
        let text = explain_complaint("b:1", "ssl://b:1/bootstrap: SSL handshake failed: wrong version number");
        assert!(text.contains("security.protocol") && text.ends_with("wrong version number"), "{text}");
        let text = explain_complaint("b:1", "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        assert!(text.contains("kafka.brokers"), "{text}");
        let text = explain_complaint("b:1", "something new");
        assert_eq!(text, "b:1: librdkafka says: something new");
    }

    #[test]
    fn codes_come_with_what_was_being_done() {
        let text = explain_code("reading the topic x", Code::TopicAuthorizationFailed);
        assert!(text.starts_with("reading the topic x: ") && text.contains("READ"), "{text}");
    }
}
