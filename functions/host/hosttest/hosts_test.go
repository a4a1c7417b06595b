package hosttest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awslambda "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	invokehttp "github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	invokelambda "github.com/sluice-iot/sluice/events/invoke/lambda"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/functions/host/lambda"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/listen"
)

// asFunction has this binary run the suite's functions on Lambda instead of tests.
const asFunction = "HOSTTEST_LAMBDA"

var log = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	if os.Getenv(asFunction) == "" {
		os.Exit(m.Run())
	}
	endpoint, err := host.New(host.Config{Name: "sluice.test", Functions: hosttest.Functions(), Caller: host.FirstOf(), Log: log})
	if err != nil {
		panic(err)
	}
	h, err := lambda.New(lambda.Config{Endpoint: endpoint, Log: log, Direct: host.Kinds})
	if err != nil {
		panic(err)
	}
	awslambda.StartWithOptions(h)
}

func TestInProcess(t *testing.T) {
	hosttest.Run(t, hosttest.Limits{}, func(t *testing.T) events.Invoker {
		inv, err := inproc.NewEncoded(log, hosttest.Functions()...)
		if err != nil {
			t.Fatal(err)
		}
		return inv
	})
}

// TestEventStore runs the suite of stored events over every host.
func TestEventStore(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) events.Invoker{
		"in process": func(t *testing.T) events.Invoker {
			inv, err := inproc.New(log, hosttest.Functions()...)
			if err != nil {
				t.Fatal(err)
			}
			return inv
		},
		"in process, encoded": func(t *testing.T) events.Invoker {
			inv, err := inproc.NewEncoded(log, hosttest.Functions()...)
			if err != nil {
				t.Fatal(err)
			}
			return inv
		},
		"HTTP, binary":     overHTTP,
		"HTTP, structured": func(t *testing.T) events.Invoker { return posting(t, cehttp.Structured) },
		"HTTP, batched":    func(t *testing.T) events.Invoker { return posting(t, cehttp.Batched) },
		"Lambda": func(t *testing.T) events.Invoker {
			inv, _ := onLambda(t, 1, nil)
			return inv
		},
	} {
		t.Run(name, func(t *testing.T) { hosttest.RunEventStore(t, start) })
	}
}

// losing loses the answer to the first request, after it was done.
type losing struct {
	http.Handler
	lost *atomic.Int32
}

func (l losing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.lost.Add(1) == 1 {
		l.Handler.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	l.Handler.ServeHTTP(w, r)
}

// TestLostAnswer has an invoker ask again by itself.
func TestLostAnswer(t *testing.T) {
	record := eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: 1}, Tenant: "T", Device: "D", Message: []byte("m")}
	for name, start := range map[string]func(*testing.T, func(http.Handler) http.Handler) events.Invoker{
		"HTTP": func(t *testing.T, wrap func(http.Handler) http.Handler) events.Invoker {
			router := func(*http.Request) (host.Caller, error) { return host.Caller{Kind: host.Router, Instance: "r"}, nil }
			endpoint, err := host.New(host.Config{Name: "sluice.test", Functions: hosttest.Functions(), Caller: router, Log: log})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(wrap(endpoint))
			t.Cleanup(srv.Close)
			inv, err := invokehttp.New(invokehttp.Config{URL: srv.URL, Source: "//sluice.test/router/0", Log: log})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(inv.Close)
			return inv
		},
		"Lambda": func(t *testing.T, wrap func(http.Handler) http.Handler) events.Invoker {
			inv, _ := onLambda(t, 1, wrap)
			return inv
		},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			inv := start(t, func(h http.Handler) http.Handler { return losing{h, &requests} })
			got, err := events.Call(t.Context(), inv, events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: []eventstore.Record{record}}})
			if err != nil || got.Results[0].Status != 200 || got.Results[0].Position != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			stats, err := events.Call(t.Context(), inv, events.EventStats{TenantID: "T"})
			if err != nil || stats.Waiting != 1 || requests.Load() != 3 {
				t.Errorf("%+v, %v after %d requests, want 1 event after 3", stats, err, requests.Load())
			}
		})
	}
}

func TestHTTPBinary(t *testing.T) {
	hosttest.Run(t, hosttest.Limits{Request: host.DefaultMaxBody}, overHTTP)
}

// overHTTP starts a Knative host with mutual TLS and reaches it as an adapter and
// as a router.
func overHTTP(t *testing.T) events.Invoker {
	url, clients := serve(t)
	connect := func(kind string) events.Invoker {
		inv, err := invokehttp.New(invokehttp.Config{URL: url, Source: "//sluice.test/" + kind + "s/0", TLS: clients[kind], Log: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(inv.Close)
		return inv
	}
	return hosttest.Routed{Adapter: connect("adapter"), Router: connect("router"), Function: connect("function")}
}

func serve(t testing.TB) (url string, clients map[string]*tls.Config) {
	t.Helper()
	dir := t.TempDir()
	ca, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]listen.Files{}
	for _, kind := range []string{"adapter", "router", "function"} {
		if files[kind], err = ca.IssueComponent(dir, kind, kind+"-0", nil, time.Hour); err != nil {
			t.Fatal(err)
		}
		f := files[kind]
		f.CA = ca.CAFile()
		files[kind] = f
	}
	conf, err := listen.ServerTLS(files["function"], listen.ServerOptions{RequireClient: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := listen.Open(t.Context(), "function", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	h, err := knative.New(knative.Config{Name: "sluice.test", Functions: hosttest.Functions(), Caller: knative.CertificateCaller, Log: log, QuietPeriod: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- knative.Serve(ctx, ln, h) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	clients = map[string]*tls.Config{}
	for _, kind := range []string{"adapter", "router", "function"} {
		client, err := listen.ClientTLS(files[kind], nil)
		if err != nil {
			t.Fatal(err)
		}
		clients[kind] = client("127.0.0.1")
	}
	return "https://" + ln.Addr().String(), clients
}

// poster asks over HTTP in the modes that the invoker does not use.
type poster struct {
	url    string
	client *http.Client
	mode   cehttp.Mode
}

func (p *poster) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	left := events.DefaultBudget
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	call, err := events.EncodeRequest(req, events.Envelope{Source: "//sluice.test/x/0", ID: events.NewID(), Time: time.Now(), Timeout: left})
	if err != nil {
		return nil, err
	}
	media, message := cehttp.StructuredType, any(call)
	if p.mode == cehttp.Batched {
		media, message = cehttp.BatchType, []event.Event{call}
	}
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", media)
	resp, err := p.client.Do(post)
	if err != nil {
		return nil, events.ErrorOf(err)
	}
	defer resp.Body.Close()
	answer, err := cehttp.ReadBody(resp.Body, resp.ContentLength, 8<<20)
	if err != nil {
		return nil, events.ErrorOf(err)
	}
	if cehttp.ModeOf(resp.Header) == cehttp.Batched {
		list, errs, err := cehttp.ReadBatch(answer, 1)
		if err != nil || errs[0] != nil {
			return nil, err
		}
		return events.DecodeReply(req, &list[0])
	}
	e, err := cehttp.Read(resp.Header, answer)
	if err != nil {
		return nil, err
	}
	return events.DecodeReply(req, &e)
}

func TestHTTPOtherModes(t *testing.T) {
	for name, mode := range map[string]cehttp.Mode{"structured": cehttp.Structured, "batched": cehttp.Batched} {
		t.Run(name, func(t *testing.T) {
			hosttest.Run(t, hosttest.Limits{Request: host.DefaultMaxBody}, func(t *testing.T) events.Invoker { return posting(t, mode) })
		})
	}
}

// posting starts a Knative host that is asked in one of the other modes.
func posting(t *testing.T, mode cehttp.Mode) events.Invoker {
	url, clients := serve(t)
	connect := func(kind string) events.Invoker {
		transport := &http.Transport{TLSClientConfig: clients[kind], ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		return &poster{url, &http.Client{Transport: transport}, mode}
	}
	return hosttest.Routed{Adapter: connect("adapter"), Router: connect("router"), Function: connect("function")}
}

func TestLambda(t *testing.T) {
	hosttest.Run(t, hosttest.Limits{Request: invokelambda.MaxPayloadBytes}, func(t *testing.T) events.Invoker {
		inv, _ := onLambda(t, 3, nil)
		return inv
	})
}

// onLambda runs the suite's functions in n processes. wrap, if not nil, comes before the
// Invoke API.
func onLambda(t testing.TB, n int, wrap func(http.Handler) http.Handler) (*invokelambda.Invoker, *hosttest.Runtime) {
	t.Helper()
	r := hosttest.NewRuntime(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		r.Start(t, []string{asFunction + "=1"}, exe)
	}
	if wrap == nil {
		wrap = func(h http.Handler) http.Handler { return h }
	}
	api := httptest.NewServer(wrap(r))
	t.Cleanup(api.Close)
	inv, err := invokelambda.New(invokelambda.Config{
		Function: "sluice", Source: "//sluice.test/x/0", Region: "eu-north-1", Endpoint: api.URL, Log: log,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv, r
}

// TestADeadFunctionIsNotWaitedFor has the only process end before it asks for work.
func TestADeadFunctionIsNotWaitedFor(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := hosttest.NewRuntime(t)
	r.Start(t, nil, exe, "-test.run=^$", "-no-such-flag")
	res, err := r.Invoke(t.Context(), "", []byte("{}"))
	if err != nil || res.FunctionError == "" || !strings.Contains(string(res.Payload), "Runtime.ExitError") || !strings.Contains(string(res.Payload), "no-such-flag") {
		t.Errorf("%s: %s, %v", res.FunctionError, res.Payload, err)
	}
}
