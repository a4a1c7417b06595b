package authtoken

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
)

// MediaType is that of a JWK set.
const MediaType = "application/jwk-set+json"

// maxAge is how long a key set may be kept: Hono's components ask every five minutes.
const maxAge = "max-age=300"

// Keys returns the public keys, each a JWK with kid, use and alg.
func (i *Issuer) Keys() []json.RawMessage { return []json.RawMessage{slices.Clone(i.public)} }

// Handler answers GET with the JWK set of this issuer's keys and those of others,
// which may be nil. While the others' are not to be had the answer is 503, because a
// set without them would make those who keep it refuse good tokens.
func (i *Issuer) Handler(others func(context.Context) ([]json.RawMessage, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := struct {
			Keys []json.RawMessage `json:"keys"`
		}{i.Keys()}
		if others != nil {
			more, err := others(r.Context())
			if err != nil {
				http.Error(w, "keys are not available", http.StatusServiceUnavailable)
				return
			}
			set.Keys = append(set.Keys, more...)
		}
		b, err := json.Marshal(set)
		if err != nil {
			http.Error(w, "keys are not available", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", MediaType)
		w.Header().Set("Cache-Control", maxAge)
		w.Write(b)
	})
}
