;; kind: scanner
;; Answers with 100,000 findings whose names are all the same 8 MB: 800 GB, were they copied.
(module
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
  (func (export "sallyport:gateway/scanner-api@0.1.0#scan") (param $kind i32) (param $text i32) (param $len i32) (result i32)
    (local $at i32)
    (drop (memory.grow (i32.const 180)))
    (local.set $at (i32.const 65536))
    (loop $more
      (i32.store (local.get $at) (i32.const 0))
      (i32.store offset=4 (local.get $at) (i32.const 8000000))
      (local.set $at (i32.add (local.get $at) (i32.const 36)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 3665536))))
    (i32.store (i32.const 1024) (i32.const 65536))
    (i32.store (i32.const 1028) (i32.const 100000))
    (i32.const 1024))
)
