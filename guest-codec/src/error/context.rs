//! A context that is full, told in the words that clients act on: at `prompt is too long` they shorten the conversation, at the
//! other phrase they ask for a shorter answer. Servers say both in words of their own, with the numbers in other places.

/// What a server said of a context that is full.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct FullContext {
    prompt: Option<u64>,
    output: Option<u64>,
    most: Option<u64>,
}

/// Sentences of servers, in lower case: `{p}` stands for the tokens of the prompt, `{o}` for those that the answer may have, `{m}`
/// for the most that fit, `{n}` for another number, `*` for anything. The first that fits counts; dated by when it was last seen.
const SENTENCES: [&str; 20] = [
    // OpenAI until 2024, DeepSeek, vLLM until 0.9 (2026-10).
    "maximum context length is {m} tokens*requested {n} tokens ({p} in the messages, {o} in the completion",
    "maximum context length is {m} tokens*requested {n} tokens ({p} in the messages, {n} in the functions, and {o} in the completion",
    "maximum context length is {m} tokens*messages resulted in {p} tokens",
    // sglang (2026-10).
    "maximum context length of {m} tokens*requested a total of {n} tokens: {p} tokens from the input messages and {o} tokens for the completion",
    "input ({p} tokens) is longer than the model's context length ({m} tokens",
    // vLLM (2026-10).
    "maximum context length is {m} tokens*requested {o} output tokens and your prompt contains at least {p} input tokens",
    "maximum context length is {m} tokens*requested {o} output tokens and your prompt contains {p} input tokens",
    "is too large: {o}*maximum context length is {m} tokens and your request has {p} input tokens",
    "prompt (length {p}) is longer than the maximum model length of {m}",
    // OpenRouter (2026-09).
    "maximum context length is {m} tokens*requested about {n} tokens ({p} of text input*{o} in the output",
    // xAI (2026-10).
    "maximum prompt length is {m} but the request contains {p} tokens",
    // Mistral (2026-08).
    "prompt contains {p} tokens*too large for model with {m} maximum context length",
    // Fireworks (2026-08).
    "prompt is too long: {p}, model maximum context length: {m}",
    // Text generation inference (2026-06).
    "must be <= {m}. given: {p} `inputs` tokens and {o} `max_new_tokens`",
    // Gemini behind the same wire (2026-10).
    "input token count ({p}) exceeds the maximum number of tokens allowed ({m})",
    // Alibaba Cloud Model Studio (2026-11).
    "range of input length should be [{n}, {m}]",
    // llama.cpp (2026-10).
    "request ({p} tokens) exceeds the available context size ({m} tokens",
    // Anthropic's own, from a router.
    "prompt is too long: {p} tokens > {m} maximum",
    "exceed context limit: {p} + {o} > {m}",
    "maximum context length is {m} tokens*{p} input tokens",
];
/// Words that say it without numbers.
const WORDS: [&str; 10] = [
    "maximum context length",
    "context length exceeded",
    "exceeds the available context size",
    "exceeds the context window",
    "exceed the context window",
    "exceeded model token limit",
    "longer than the model's context length",
    "maximum prompt length",
    "input is too long",
    "prompt is too long",
];
/// The longest message that is looked through.
const LONGEST: usize = 8192;

/// What `message` says of a full context; nothing if it is about something else.
pub fn full_context(message: &str) -> Option<FullContext> {
    let end = message.floor_char_boundary(LONGEST);
    let text = message.get(..end).unwrap_or_default().to_lowercase();
    SENTENCES
        .iter()
        .find_map(|sentence| fits(sentence, &text))
        .or_else(|| WORDS.iter().any(|it| text.contains(it)).then(FullContext::default))
}

// === impl FullContext ===

impl FullContext {
    /// The phrase for clients, with the upstream's own words behind it.
    pub fn message(self, message: &str) -> String {
        let phrase = match (self.prompt, self.output, self.most) {
            (Some(prompt), _, Some(most)) if prompt > most => {
                format!("prompt is too long: {prompt} tokens > {most} maximum")
            }
            (Some(prompt), Some(output), Some(most)) if prompt.saturating_add(output) > most => format!(
                "input length and `max_tokens` exceed context limit: {prompt} + {output} > {most}, decrease input length or \
                 `max_tokens` and try again"
            ),
            _ => "prompt is too long".to_owned(),
        };
        if message.contains(&phrase) {
            return message.to_owned();
        }
        let joint = if phrase.ends_with("too long") { ": " } else { "; the upstream said: " };
        format!("{phrase}{joint}{message}")
    }
}

// === private helpers ===

/// The numbers, if the sentence is somewhere in the text.
fn fits(sentence: &str, text: &str) -> Option<FullContext> {
    let mut full = FullContext::default();
    let mut rest = text;
    for piece in sentence.split('*') {
        let begin = piece.split('{').next().unwrap_or_default();
        rest = if begin.is_empty() {
            // Begins with a number: any in what is left.
            rest.char_indices().filter(|(_, it)| it.is_ascii_digit()).find_map(|(at, _)| {
                let before = rest.get(..at).unwrap_or_default();
                let fresh = !before.ends_with(|it: char| it.is_ascii_digit() || it == ',');
                read(piece, rest.get(at..)?, &mut full).filter(|_| fresh)
            })?
        } else {
            rest.match_indices(begin).find_map(|(at, _)| read(piece, rest.get(at..)?, &mut full))?
        };
    }
    Some(full)
}

/// What follows `piece`, if the text begins with it.
fn read<'t>(piece: &str, text: &'t str, full: &mut FullContext) -> Option<&'t str> {
    let (mut piece, mut text) = (piece, text);
    while let Some((literal, tail)) = piece.split_once('{') {
        let (slot, after) = tail.split_once('}')?;
        text = text.strip_prefix(literal)?;
        let digits = text.find(|it: char| !(it.is_ascii_digit() || it == ',')).unwrap_or(text.len());
        let (number, rest) = text.split_at_checked(digits)?;
        // A comma after the number belongs to the sentence.
        let given_back = number.len() - number.trim_end_matches(',').len();
        text = text.get(digits - given_back..).unwrap_or(rest);
        let number = number.replace(',', "").parse().ok();
        number?;
        match slot {
            "p" => full.prompt = number,
            "o" => full.output = number,
            "m" => full.most = number,
            _ => {}
        }
        piece = after;
    }
    text.strip_prefix(piece)
}

#[cfg(test)]
mod tests {
    use super::full_context;

    const PROMPT: &str = "prompt is too long: 300000 tokens > 262144 maximum";
    const BOTH: &str = "input length and `max_tokens` exceed context limit: 230462 + 32000 > 262144";

    #[test]
    fn a_prompt_that_does_not_fit_is_told_in_the_words_that_clients_act_on() {
        for said in [
            "This model's maximum context length is 262144 tokens. However, your messages resulted in 300000 tokens. Please reduce the length of the messages.",
            "The input (300000 tokens) is longer than the model's context length (262144 tokens).",
            "This model's maximum prompt length is 262144 but the request contains 300000 tokens.",
            "Prompt contains 300000 tokens and 0 draft tokens, too large for model with 262144 maximum context length",
            "The prompt is too long: 300000, model maximum context length: 262144",
            "The decoder prompt (length 300000) is longer than the maximum model length of 262144. Make sure that ..",
            "This model's maximum context length is 262144 tokens. However, you requested 332000 tokens (300000 in the messages, 32000 in the completion).",
            "the request (300,000 tokens) exceeds the available context size (262,144 tokens), try increasing it",
            "The input token count (300000) exceeds the maximum number of tokens allowed (262144).",
        ] {
            let told = full_context(said).map(|it| it.message(said)).unwrap_or_default();
            assert!(told.starts_with(PROMPT), "{said}: {told}");
            assert!(told.contains(said), "its own words are kept: {told}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_beside_the_prompt_is_told_with_its_numbers() {
        for said in [
            "This model's maximum context length is 262144 tokens. However, you requested 262462 tokens (230462 in the messages, 32000 in the completion). Please reduce the length of the messages or completion.",
            "Requested token count exceeds the model's maximum context length of 262144 tokens. You requested a total of 262462 tokens: 230462 tokens from the input messages and 32000 tokens for the completion. Please reduce ..",
            "This model's maximum context length is 262144 tokens. However, you requested 32000 output tokens and your prompt contains at least 230462 input tokens, for a total of at least 262462 tokens.",
            "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 262144 tokens and your request has 230462 input tokens (32000 > 262144 - 230462).",
            "This endpoint's maximum context length is 262144 tokens. However, you requested about 262462 tokens (230462 of text input, 32000 in the output). Please ..",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 262144. Given: 230462 `inputs` tokens and 32000 `max_new_tokens`",
        ] {
            let told = full_context(said).map(|it| it.message(said)).unwrap_or_default();
            assert!(told.starts_with(BOTH), "{said}: {told}");
        }
    }

    #[test]
    fn what_is_said_without_numbers_still_says_that_the_prompt_is_too_long() {
        for said in [
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "Invalid request: Your request exceeded model token limit: 131072",
            "context length exceeded",
        ] {
            let told = full_context(said).map(|it| it.message(said)).unwrap_or_default();
            assert_eq!(told, format!("prompt is too long: {said}"));
        }
        let own = "prompt is too long: 300000 tokens > 262144 maximum";
        assert_eq!(
            full_context(own).map(|it| it.message(own)).as_deref(),
            Some(own),
            "no phrase stands there twice"
        );
    }

    #[test]
    fn other_errors_are_left_alone() {
        for said in ["max_tokens must be at least 1", "the tool x is not known", "", "{m} tokens"] {
            assert_eq!(full_context(said), None, "{said}");
        }
    }
}
