;; kind: provider
;; Answers with one reply of 40 MB.
(module
  (import "[export]sallyport:gateway/provider-api@0.1.0" "[resource-new]exchange" (func $new (param i32) (result i32)))
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
  (func (export "sallyport:gateway/provider-api@0.1.0#[constructor]exchange") (param $request i32) (result i32)
    (call $new (i32.const 7)))
  (func (export "sallyport:gateway/provider-api@0.1.0#[method]exchange.next")
    (param $self i32) (param $case i32) (param $a i32) (param $b i32) (param $c i32) (result i32)
    (drop (memory.grow (i32.const 640)))
    ;; ok, one output: `message`, its JSON 40,000,000 bytes long
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 2048))
    (i32.store (i32.const 1032) (i32.const 1))
    (i32.store8 (i32.const 2048) (i32.const 3))
    (i32.store (i32.const 2052) (i32.const 65536))
    (i32.store (i32.const 2056) (i32.const 40000000))
    (i32.const 1024))
)
