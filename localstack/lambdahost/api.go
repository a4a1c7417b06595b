package lambdahost

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// API is the Invoke API of several functions: POST
// /2015-03-31/functions/NAME/invocations, where NAME is a function's name or ARN, with an
// alias or not.
func API(hosts ...*Host) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, "/2015-03-31/functions/")
		name, ok2 := strings.CutSuffix(name, "/invocations")
		if !ok || !ok2 || r.Method != http.MethodPost {
			refuse(w, http.StatusNotFound, "ResourceNotFoundException", "not an invocation")
			return
		}
		name = strings.TrimPrefix(name, ARN("", ""))
		name, alias, _ := strings.Cut(name, ":")
		if q := r.URL.Query().Get("Qualifier"); q != "" {
			alias = q
		}
		for _, h := range hosts {
			if h.cfg.Name == name {
				h.serve(w, r, alias)
				return
			}
		}
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", "Function not found: "+name)
	})
}

// serve answers a request to invoke the function.
func (h *Host) serve(w http.ResponseWriter, r *http.Request, alias string) {
	payload, err := io.ReadAll(io.LimitReader(r.Body, MaxPayloadBytes+1))
	switch {
	case err != nil:
		return // the caller has gone
	case len(payload) > MaxPayloadBytes:
		refuse(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", "the payload is longer than 6 MiB")
		return
	}
	ctx := r.Context()
	async := r.Header.Get("X-Amz-Invocation-Type") == "Event"
	if async {
		w.WriteHeader(http.StatusAccepted)
		go h.Invoke(context.WithoutCancel(ctx), alias, payload)
		return
	}
	res, err := h.Invoke(ctx, alias, payload)
	switch {
	case errors.Is(err, ErrThrottled):
		refuse(w, http.StatusTooManyRequests, "TooManyRequestsException", "Rate Exceeded.")
	case errors.Is(err, ErrNotFound):
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", "Function not found: "+h.ARN(alias))
	case err != nil && ctx.Err() == nil:
		refuse(w, http.StatusInternalServerError, "ServiceException", err.Error())
	case err == nil:
		if res.FunctionError != "" {
			w.Header().Set("X-Amz-Function-Error", res.FunctionError)
		}
		w.Header().Set("X-Amz-Executed-Version", "1")
		_, _ = w.Write(res.Payload)
	}
}

func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("X-Amzn-ErrorType", kind)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"Type": "User", "message": message})
}

// urlRequest is what a function gets of a request to its URL (format 2.0).
type urlRequest struct {
	Version        string            `json:"version"`
	RouteKey       string            `json:"routeKey"`
	RawPath        string            `json:"rawPath"`
	RawQueryString string            `json:"rawQueryString"`
	Headers        map[string]string `json:"headers"`
	RequestContext map[string]any    `json:"requestContext"`
	Body           string            `json:"body"`
	Base64         bool              `json:"isBase64Encoded"`
}

// urlResponse is what it answers.
type urlResponse struct {
	StatusCode int               `json:"statusCode"`
	Headers    map[string]string `json:"headers"`
	Cookies    []string          `json:"cookies"`
	Body       string            `json:"body"`
	Base64     bool              `json:"isBase64Encoded"`
}

// URL is the function URL of an alias, without IAM before it.
func (h *Host) URL(alias string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := encodeURL(r)
		if err != nil {
			http.Error(w, `{"Message":"`+err.Error()+`"}`, http.StatusRequestEntityTooLarge)
			return
		}
		res, err := h.Invoke(r.Context(), alias, payload)
		var out urlResponse
		switch {
		case errors.Is(err, ErrThrottled):
			http.Error(w, `{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded"}`, http.StatusTooManyRequests)
		case err != nil || res.FunctionError != "" || json.Unmarshal(res.Payload, &out) != nil:
			http.Error(w, `{"Message":"Internal Server Error"}`, http.StatusBadGateway)
		default:
			writeURL(w, &out)
		}
	})
}

func encodeURL(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxPayloadBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > MaxPayloadBytes {
		return nil, fmt.Errorf("the request is longer than %d bytes", MaxPayloadBytes)
	}
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	in := urlRequest{Version: "2.0", RouteKey: "$default", RawPath: (&url.URL{Path: r.URL.Path}).EscapedPath(), RawQueryString: r.URL.RawQuery,
		Headers: map[string]string{"host": r.Host, "x-forwarded-for": ip}, Body: base64.StdEncoding.EncodeToString(body), Base64: true}
	if r.URL.RawPath != "" {
		in.RawPath = r.URL.RawPath
	}
	for name, values := range r.Header {
		in.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	in.RequestContext = map[string]any{"domainName": r.Host, "stage": "$default",
		"http": map[string]string{"method": r.Method, "path": r.URL.Path, "protocol": r.Proto, "sourceIp": ip, "userAgent": r.UserAgent()}}
	return json.Marshal(in)
}

func writeURL(w http.ResponseWriter, out *urlResponse) {
	body := []byte(out.Body)
	if out.Base64 {
		var err error
		if body, err = base64.StdEncoding.DecodeString(out.Body); err != nil {
			http.Error(w, `{"Message":"Internal Server Error"}`, http.StatusBadGateway)
			return
		}
	}
	for name, value := range out.Headers {
		w.Header().Set(name, value)
	}
	for _, c := range out.Cookies {
		w.Header().Add("Set-Cookie", c)
	}
	w.WriteHeader(max(out.StatusCode, 200))
	_, _ = w.Write(body)
}
