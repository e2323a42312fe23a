;; kind: policy
;; Says that there is no memory: every allocation is at 0.
(module
  (import "sallyport:gateway/types@0.1.0" "[resource-drop]body" (func $drop (param i32)))
  (memory (export "memory") 3)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "sallyport:gateway/policy-api@0.1.0#settle") (param i32))
  (func (export "sallyport:gateway/policy-api@0.1.0#check") (param $call i32) (result i32)
    (call $drop (i32.load offset=176 (local.get $call)))
    (i32.const 1024))
)
