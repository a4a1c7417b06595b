package lambda

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	awsevents "github.com/aws/aws-lambda-go/events"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// request is an HTTP request in any of the forms that Lambda delivers.
type request struct {
	method, host, path, query, remote string
	header                            http.Header
	body                              string
	base64                            bool
	iam                               *IAM
}

// http gives a request to the endpoint. rest is the older form, of API Gateway's
// REST interfaces.
func (h *Handler) http(ctx context.Context, payload []byte, rest bool) ([]byte, error) {
	w := newRecorder()
	if r, err := read(ctx, payload, rest); err != nil {
		http.Error(w, status.Text(err), status.Of(err).Status)
	} else {
		h.cfg.Endpoint.ServeHTTP(w, r)
	}
	return w.result(rest)
}

func read(ctx context.Context, payload []byte, rest bool) (*http.Request, error) {
	if len(payload) > MaxPayloadBytes {
		return nil, iot.Errorf(iot.ErrTooLarge, "the request has more than the %d bytes that Lambda carries", MaxPayloadBytes)
	}
	in, err := parse(payload, rest)
	if err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "the request does not decode")
	}
	body := []byte(in.body)
	if in.base64 {
		if body, err = base64.StdEncoding.DecodeString(in.body); err != nil {
			return nil, iot.Errorf(iot.ErrInvalid, "the request's body is not Base64")
		}
	}
	u := &url.URL{Scheme: "https", Host: in.host, Path: in.path, RawQuery: in.query}
	if decoded, err := url.PathUnescape(in.path); err == nil && !rest {
		u.Path, u.RawPath = decoded, in.path // the newer form keeps the path as it was sent
	}
	r, err := http.NewRequestWithContext(ctx, cmp.Or(in.method, http.MethodGet), "https://function/", bytes.NewReader(body))
	if err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "the request's method is none")
	}
	r.URL, r.Host, r.Header, r.RemoteAddr = u, in.host, in.header, net.JoinHostPort(in.remote, "0")
	r.RequestURI = u.RequestURI()
	if in.iam != nil {
		r = r.WithContext(context.WithValue(ctx, iamKey{}, *in.iam))
	}
	return r, nil
}

func parse(payload []byte, rest bool) (*request, error) {
	if rest {
		return parseREST(payload)
	}
	var e awsevents.APIGatewayV2HTTPRequest // a function URL's request has the same form
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, err
	}
	c := &e.RequestContext
	in := &request{
		method: c.HTTP.Method, host: c.DomainName, query: e.RawQueryString, remote: c.HTTP.SourceIP,
		header: headers(e.Headers, nil), body: e.Body, base64: e.IsBase64Encoded,
		path: cmp.Or(e.RawPath, "/"),
	}
	if c.Stage != "" && c.Stage != "$default" {
		if rest, ok := strings.CutPrefix(in.path, "/"+c.Stage); ok && (rest == "" || rest[0] == '/') {
			in.path = cmp.Or(rest, "/")
		}
	}
	if a := c.Authorizer; a != nil && a.IAM != nil {
		in.iam = &IAM{AccountID: a.IAM.AccountID, ARN: a.IAM.UserARN}
	}
	return in, nil
}

func parseREST(payload []byte) (*request, error) {
	var e awsevents.APIGatewayProxyRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, err
	}
	c := &e.RequestContext
	query := url.Values(e.MultiValueQueryStringParameters)
	if query == nil {
		query = url.Values{}
		for k, v := range e.QueryStringParameters {
			query.Set(k, v)
		}
	}
	in := &request{
		method: e.HTTPMethod, host: c.DomainName, query: query.Encode(), remote: c.Identity.SourceIP,
		header: headers(e.Headers, e.MultiValueHeaders), body: e.Body, base64: e.IsBase64Encoded,
		path: cmp.Or(e.Path, "/"),
	}
	if arn := c.Identity.UserArn; arn != "" {
		in.iam = &IAM{AccountID: c.Identity.AccountID, ARN: arn}
	}
	return in, nil
}

func headers(single map[string]string, multi map[string][]string) http.Header {
	h := http.Header{}
	for k, v := range single {
		h.Set(k, v)
	}
	for k, v := range multi {
		h[http.CanonicalHeaderKey(k)] = v
	}
	return h
}

// recorder keeps a response. What goes beyond Lambda's limit is not kept.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
	total  int
}

func newRecorder() *recorder { return &recorder{header: http.Header{}} }

// Header implements [http.ResponseWriter].
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && code >= 200 { // an informational response goes nowhere
		w.code = code
	}
}

// Write implements [http.ResponseWriter].
func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.total += len(b); w.total > MaxPayloadBytes {
		w.body = bytes.Buffer{}
		return 0, io.ErrShortWrite
	}
	return w.body.Write(b)
}

// result is the response in the form of the request.
func (w *recorder) result(rest bool) ([]byte, error) {
	if w.total <= MaxPayloadBytes {
		if b, err := w.encode(rest); err != nil || len(b) <= MaxPayloadBytes {
			return b, err
		}
	}
	long := newRecorder()
	http.Error(long, fmt.Sprintf("the response has more than the %d bytes that Lambda carries: ask for less at a time", MaxPayloadBytes), http.StatusRequestEntityTooLarge)
	return long.encode(rest)
}

func (w *recorder) encode(rest bool) ([]byte, error) {
	w.WriteHeader(http.StatusOK)
	body, encoded := w.body.String(), false
	if !utf8.ValidString(body) || w.header.Get("Content-Encoding") != "" {
		body, encoded = base64.StdEncoding.EncodeToString(w.body.Bytes()), true
	}
	if rest {
		return json.Marshal(awsevents.APIGatewayProxyResponse{StatusCode: w.code, MultiValueHeaders: w.header, Body: body, IsBase64Encoded: encoded})
	}
	single := map[string]string{}
	for k, v := range w.header {
		single[k] = strings.Join(v, ",")
	}
	return json.Marshal(awsevents.APIGatewayV2HTTPResponse{StatusCode: w.code, Headers: single, Body: body, IsBase64Encoded: encoded})
}
