;; kind: provider
;; Makes resources for as long as it is let.
(module
  (import "[export]test:hostile/flood" "[resource-new]thing" (func $new (param i32) (result i32)))
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
  (func (export "sallyport:gateway/provider-api@0.1.0#begin") (param $request i32) (result i32)
    (loop $more (drop (call $new (i32.const 7))) (br $more))
    (i32.const 0))
  (func (export "test:hostile/flood#[constructor]thing") (result i32)
    (call $new (i32.const 7)))
  (func (export "sallyport:gateway/provider-api@0.1.0#next") (param $inputs i32) (param $count i32) (result i32)
    ;; no outputs: 1040 is zero
    (i32.const 1040))
)
