package auth

import (
	"reflect"
	"slices"
)

// keep takes over from the state before what did not change: identities, so that
// who holds one sees by the pointer that it is the same; what verifiers remember, so
// that a reload does not make every client's next log-in expensive; and the keys of
// issuers.
func (s *snapshot) keep(old *snapshot) {
	s.version = old.version + 1
	for name, e := range s.entries {
		was := old.entries[name]
		if was == nil {
			continue
		}
		if e.identity.equal(was.identity) {
			e.identity = was.identity
		}
		if reflect.DeepEqual(e.verifier.secret, was.verifier.secret) {
			e.verifier = was.verifier
		}
	}
	for name, o := range s.operators {
		if was := old.operators[name]; was != nil && reflect.DeepEqual(o.verifier.secret, was.verifier.secret) {
			o.verifier = was.verifier
		}
	}
	for name, x := range s.issuers {
		if was := old.issuers[name]; was != nil && reflect.DeepEqual(was.conf, x.conf) {
			s.issuers[name] = was
		}
	}
}

func (i *Identity) equal(o *Identity) bool {
	a, b := *i, *o
	a.authorities, b.authorities = nil, nil
	return a == b && slices.Equal(i.authorities.List(), o.authorities.List())
}
