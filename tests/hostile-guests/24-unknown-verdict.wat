;; kind: policy
;; Answers with a verdict of a later contract, `other`, whose name and value are empty.
(module
  (import "sallyport:gateway/types@0.1.0" "[resource-drop]body" (func $drop (param i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1)))))
    (local.get $at))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "sallyport:gateway/policy-api@0.1.0#settle") (param i32))
  (func (export "sallyport:gateway/policy-api@0.1.0#check") (param $call i32) (result i32)
    (call $drop (i32.load offset=176 (local.get $call)))
    (i32.store8 (i32.const 1024) (i32.const 3))
    (i32.const 1024))
)
