;; kind: component
;; Was built against a contract that this host does not speak.
(component
  (import "sallyport:gateway/types@0.9.0" (instance)))
