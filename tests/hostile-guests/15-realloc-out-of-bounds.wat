;; kind: policy
;; Hands the host memory that it does not have.
(module
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0xfffffff0))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "sallyport:gateway/policy-api@0.1.0#settle") (param i32))
  (func (export "sallyport:gateway/policy-api@0.1.0#check") (param $call i32) (result i32)
    (i32.const 1024))
)
