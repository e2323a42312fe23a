;; kind: component
;; Wants an interface that no world gives.
(component
  (import "sallyport:gateway/admin@0.1.0" (instance (export "grant" (func (param "what" string))))))
