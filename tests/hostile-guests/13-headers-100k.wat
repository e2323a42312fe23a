;; kind: provider
;; Sends a hundred thousand headers, each with a name of its own.
(module
  (memory (export "memory") 60)
  (data (i32.const 512) "POST/v1/messages")
  (global $heap (mut i32) (i32.const 131072))
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
    (local $n i32) (local $at i32) (local $name i32)
    ;; Names of five letters from 196608 on, their list from 1048576 on.
    (loop $more
      (local.set $name (i32.add (i32.const 196608) (i32.mul (local.get $n) (i32.const 8))))
      (i32.store8 (local.get $name) (i32.add (i32.const 97) (i32.rem_u (local.get $n) (i32.const 26))))
      (i32.store8 offset=1 (local.get $name) (i32.add (i32.const 97) (i32.rem_u (i32.div_u (local.get $n) (i32.const 26)) (i32.const 26))))
      (i32.store8 offset=2 (local.get $name) (i32.add (i32.const 97) (i32.rem_u (i32.div_u (local.get $n) (i32.const 676)) (i32.const 26))))
      (i32.store8 offset=3 (local.get $name) (i32.add (i32.const 97) (i32.div_u (local.get $n) (i32.const 17576))))
      (local.set $at (i32.add (i32.const 1048576) (i32.mul (local.get $n) (i32.const 16))))
      (i32.store (local.get $at) (local.get $name))
      (i32.store offset=4 (local.get $at) (i32.const 4))
      (i32.store offset=8 (local.get $at) (i32.const 512))
      (i32.store offset=12 (local.get $at) (i32.const 4))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $n) (i32.const 100000))))
    ;; method, path, headers
    (i32.store (i32.const 2052) (i32.const 512)) (i32.store (i32.const 2056) (i32.const 4))
    (i32.store (i32.const 2060) (i32.const 516)) (i32.store (i32.const 2064) (i32.const 12))
    (i32.store (i32.const 2068) (i32.const 1048576)) (i32.store (i32.const 2072) (i32.const 100000))
    ;; one output: `send`
    (i32.store (i32.const 1024) (i32.const 2048))
    (i32.store (i32.const 1028) (i32.const 1))
    (i32.const 1024))
  (func (export "sallyport:gateway/provider-api@0.1.0#next") (param $inputs i32) (param $count i32) (result i32)
    ;; no outputs: 1040 is zero
    (i32.const 1040))
)
