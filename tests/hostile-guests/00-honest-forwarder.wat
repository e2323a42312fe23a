;; kind: provider
;; Hands the request on, looks at the head of the answer, and hands the answer on.
(module
  (memory (export "memory") 3)
  (data (i32.const 512) "POST/v1/messages")
  (data (i32.const 4096) "content-typeapplication/json")
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
    ;; method, path, no headers, and the client's bytes
    (i32.store (i32.const 2052) (i32.const 512)) (i32.store (i32.const 2056) (i32.const 4))
    (i32.store (i32.const 2060) (i32.const 516)) (i32.store (i32.const 2064) (i32.const 12))
    (i32.store (i32.const 2068) (i32.const 2304)) (i32.store (i32.const 2072) (i32.const 0))
    (i32.store8 (i32.const 2076) (i32.const 1))
    ;; one output: `send`
    (i32.store (i32.const 1024) (i32.const 2048))
    (i32.store (i32.const 1028) (i32.const 1))
    (i32.const 1024))
  (func (export "sallyport:gateway/provider-api@0.1.0#next") (param $inputs i32) (param $count i32) (result i32)
    ;; one output: `forward`, with status 200 and one header
    (i32.store8 (i32.const 3072) (i32.const 2))
    (i32.store16 (i32.const 3076) (i32.const 200))
    (i32.store (i32.const 3080) (i32.const 3200)) (i32.store (i32.const 3084) (i32.const 1))
    (i32.store (i32.const 3200) (i32.const 4096)) (i32.store (i32.const 3204) (i32.const 12))
    (i32.store (i32.const 3208) (i32.const 4108)) (i32.store (i32.const 3212) (i32.const 16))
    (i32.store (i32.const 1024) (i32.const 3072))
    (i32.store (i32.const 1028) (i32.const 1))
    (i32.const 1024))
)
