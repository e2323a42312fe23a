;; kind: provider
;; Asks for a path that leads elsewhere. The story says which: it fills in the blanks.
(module
  (memory (export "memory") 3)
  (data (i32.const 512) "POST")
  (data (i32.const 4096) "{path}")
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
    ;; method, path, headers
    (i32.store (i32.const 2052) (i32.const 512)) (i32.store (i32.const 2056) (i32.const 4))
    (i32.store (i32.const 2060) (i32.const 4096)) (i32.store (i32.const 2064) (i32.const {path-length}))
    (i32.store (i32.const 2068) (i32.const 2304)) (i32.store (i32.const 2072) (i32.const 0))
    ;; one output: `send`
    (i32.store (i32.const 1024) (i32.const 2048))
    (i32.store (i32.const 1028) (i32.const 1))
    (i32.const 1024))
  (func (export "sallyport:gateway/provider-api@0.1.0#next") (param $inputs i32) (param $count i32) (result i32)
    ;; no outputs: 1040 is zero
    (i32.const 1040))
)
