package management

import "net/http"

// allowOrigin lets pages of the allowed origin read the answer (contract:
// registry, section 1.3).
func (h *Handler) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") == "" {
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", h.options.Origin)
	w.Header().Set("Access-Control-Expose-Headers", "etag")
	if h.options.Origin != "*" {
		w.Header().Add("Vary", "Origin")
	}
}

// preflight answers OPTIONS. Browsers send no credentials with it, so nobody
// is authenticated and it tells no more than the path's methods.
func (h *Handler) preflight(w http.ResponseWriter, res *resource) {
	if res == nil {
		h.writeJSON(w, http.StatusNotFound, failure{"no such resource"})
		return
	}
	methods := res.methods()
	w.Header().Set("Allow", methods)
	if w.Header().Get("Access-Control-Allow-Origin") != "" {
		w.Header().Set("Access-Control-Allow-Methods", methods)
		w.Header().Set("Access-Control-Allow-Headers", "content-type,authorization,if-match")
	}
	w.WriteHeader(http.StatusNoContent)
}
