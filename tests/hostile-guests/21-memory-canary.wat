;; kind: policy
;; Denies when it finds in its memory what an earlier call left there; leaves it for the next one. It looks at
;; the page that it began with and at one that it grew.
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
    (local $at i32)
    (call $drop (i32.load offset=176 (local.get $call)))
    (drop (memory.grow (i32.const 64)))
    (local.set $at (i32.const 131072))
    (loop $more
      (if (i64.eq (i64.load (local.get $at)) (i64.const 0x59524e414359414c)) (then (return (call $deny))))
      (i64.store (local.get $at) (i64.const 0x59524e414359414c))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 4325376))))
    (if (i64.eq (i64.load (i32.const 8192)) (i64.const 0x59524e414359414c)) (then (return (call $deny))))
    (i64.store (i32.const 8192) (i64.const 0x59524e414359414c))
    (i32.const 1024))
  ;; deny: a refusal with two texts, no time to retry, kind `denied`
  (func $deny (result i32)
    (i32.store8 (i32.const 1100) (i32.const 1))
    (i32.store (i32.const 1104) (i32.const 1200)) (i32.store (i32.const 1108) (i32.const 6))
    (i32.store (i32.const 1112) (i32.const 1200)) (i32.store (i32.const 1116) (i32.const 6))
    (i32.const 1100))
  (data (i32.const 1200) "canary")
)
