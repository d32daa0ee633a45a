//! The generated code is what the generator makes of the protos. `UPDATE_PROTOS=1` writes it.

#[allow(unreachable_pub, reason = "shared with xtask")]
#[path = "../../xtask/src/codegen_protos.rs"]
mod codegen_protos;

#[test]
fn generated_code_is_fresh() {
    if std::env::var_os("UPDATE_PROTOS").is_some() {
        codegen_protos::protos().unwrap();
    }
    codegen_protos::protos_fresh().unwrap();
}
