;; kind: hook
;; Asks through the grant way0 whether a tool may run: 200 is yes, everything else is no.
(module
  (import "sallyport:gateway/egress@0.1.0" "fetch"
    (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
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
  (data (i32.const 64) "GET")
  (data (i32.const 80) "way0")
  (data (i32.const 96) "/v1/check?secret=query")
  (func (export "sallyport:gateway/hook-api@0.1.0#on-event") (param $what i32) (result i32)
    (call $fetch (i32.const 80) (i32.const 4) (i32.const 64) (i32.const 3) (i32.const 96) (i32.const 22)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048))
    (if (i32.or (i32.load8_u (i32.const 2048)) (i32.ne (i32.load16_u (i32.const 2052)) (i32.const 200)))
      (then (i32.store8 (i32.const 1024) (i32.const 1))))
    (i32.const 1024))
)
