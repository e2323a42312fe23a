;; kind: hook
;; Asks through a grant that it does not have, leaves its grant by the path in three ways, asks for a redirect and goes where it
;; leads, and then asks forty times more.
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
  (data (i32.const 96) "/")
  (data (i32.const 112) "elsewhere")
  (data (i32.const 128) "//evil.example/")
  (data (i32.const 160) "http://127.0.0.1/")
  (data (i32.const 192) "/%2e%2e/admin")
  ;; One GET through the grant at $grant; the answer goes to 2048.
  (func $get (param $grant i32) (param $grant-len i32) (param $path i32) (param $path-len i32)
    (call $fetch (local.get $grant) (local.get $grant-len) (i32.const 64) (i32.const 3) (local.get $path) (local.get $path-len)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)))
  (func (export "sallyport:gateway/hook-api@0.1.0#on-event") (param $what i32) (result i32)
    (local $left i32)
    (call $get (i32.const 112) (i32.const 9) (i32.const 96) (i32.const 1))
    (call $get (i32.const 80) (i32.const 4) (i32.const 128) (i32.const 15))
    (call $get (i32.const 80) (i32.const 4) (i32.const 160) (i32.const 17))
    (call $get (i32.const 80) (i32.const 4) (i32.const 192) (i32.const 13))
    (call $get (i32.const 80) (i32.const 4) (i32.const 96) (i32.const 1))
    ;; The redirect's target: the value of the first header of the answer.
    (call $get (i32.const 80) (i32.const 4)
      (i32.load offset=8 (i32.load (i32.const 2056))) (i32.load offset=12 (i32.load (i32.const 2056))))
    (local.set $left (i32.const 40))
    (loop $next
      (call $get (i32.const 80) (i32.const 4) (i32.const 96) (i32.const 1))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    ;; The last one was one too many, so it is fault 2.
    (if (i32.ne (i32.load8_u (i32.const 2052)) (i32.const 2))
      (then (i32.store8 (i32.const 1024) (i32.const 1))))
    (i32.const 1024))
)
