//! One target under libFuzzer: that of `AGENTD_FUZZ_TARGET`. Built by `fuzz/run`, with instrumentation.
#![no_main]

use std::sync::OnceLock;

use agentd_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("AGENTD_FUZZ_TARGET").expect("AGENTD_FUZZ_TARGET names a target");
        agentd_fuzz::target(&name).expect("there is a target of that name")
    });
    (target.run)(input);
});
