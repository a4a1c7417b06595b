package hosttest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// arn is that of the function, before an alias.
const arn = "arn:aws:lambda:eu-north-1:123456789012:function:sluice"

// Runtime is AWS Lambda as far as a function and its callers see it: the Runtime
// API (2018-06-01) for processes that run the function, one invocation each at a
// time, and the Invoke API (2015-03-31) for callers.
type Runtime struct {
	// Timeout is the function's, 5 s. To be changed before the first invocation.
	Timeout time.Duration

	queue chan *invocation
	api   *httptest.Server

	mu      sync.Mutex
	count   int
	running map[string]*invocation
	alive   int           // of the processes that are known
	dead    chan struct{} // closed when all of them have ended
	said    string        // what the last of them wrote
}

type invocation struct {
	id, alias string
	payload   []byte
	deadline  time.Time
	done      chan Result
}

// Result is how an invocation ended.
type Result struct {
	Payload       []byte
	FunctionError string // "" = the function answered
}

// NewRuntime starts the Runtime API on a loopback address until the test ends.
func NewRuntime(t testing.TB) *Runtime {
	r := &Runtime{Timeout: 5 * time.Second, queue: make(chan *invocation), running: map[string]*invocation{}, dead: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", r.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, q *http.Request) { r.finish(t, w, q, "") })
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, q *http.Request) { r.finish(t, w, q, "Unhandled") })
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", func(_ http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		t.Errorf("the function does not start: %s", body)
	})
	r.api = httptest.NewServer(mux)
	t.Cleanup(r.api.Close)
	return r
}

// Address is the value of AWS_LAMBDA_RUNTIME_API.
func (r *Runtime) Address() string { return r.api.Listener.Addr().String() }

// Runs tells of a process that runs the function: while all that were told of have
// ended, invocations fail at once with what the last of them wrote, and do not wait
// for one that is free.
func (r *Runtime) Runs(ended <-chan struct{}, wrote func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.alive == 0 {
		r.dead = make(chan struct{})
	}
	r.alive++
	go func() {
		<-ended
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.alive--; r.alive == 0 {
			r.said = wrote()
			close(r.dead)
		}
	}()
}

// Start runs a program that serves invocations, as [Start] does.
func (r *Runtime) Start(t testing.TB, environ []string, program string, args ...string) {
	t.Helper()
	p := Start(t, append(environ, "AWS_LAMBDA_RUNTIME_API="+r.Address()), program, args...)
	r.Runs(p.Ended, p.Log.String)
}

// next hands an invocation to a process.
func (r *Runtime) next(w http.ResponseWriter, q *http.Request) {
	select {
	case <-q.Context().Done():
	case i := <-r.queue:
		r.mu.Lock()
		r.running[i.id] = i
		r.mu.Unlock()
		function := arn
		if i.alias != "" {
			function += ":" + i.alias
		}
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
		h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(i.deadline.UnixMilli()))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", function)
		_, _ = w.Write(i.payload)
	}
}

func (r *Runtime) finish(t testing.TB, w http.ResponseWriter, q *http.Request, functionError string) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		t.Errorf("result of the function: %v", err)
	}
	id := q.PathValue("id")
	r.mu.Lock()
	i := r.running[id]
	delete(r.running, id)
	r.mu.Unlock()
	if i == nil {
		w.WriteHeader(http.StatusBadRequest) // it came after the time-out
		return
	}
	i.done <- Result{body, functionError}
	w.WriteHeader(http.StatusAccepted)
}

// Invoke runs the function by an alias ("" = by none) and waits for the result. It
// waits for a process that is free.
func (r *Runtime) Invoke(ctx context.Context, alias string, payload []byte) (Result, error) {
	r.mu.Lock()
	r.count++
	i := &invocation{id: fmt.Sprintf("invocation-%d", r.count), alias: alias, payload: payload, deadline: time.Now().Add(r.Timeout), done: make(chan Result, 1)}
	dead := r.dead
	r.mu.Unlock()
	select {
	case r.queue <- i:
	case <-dead:
		return r.exited(i)
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	timeout := time.NewTimer(time.Until(i.deadline))
	defer timeout.Stop()
	select {
	case res := <-i.done:
		return res, nil
	case <-dead:
		return r.exited(i)
	case <-timeout.C:
		return r.lost(i, "Sandbox.Timedout", fmt.Sprintf("Task timed out after %.2f seconds", r.Timeout.Seconds()))
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

func (r *Runtime) exited(i *invocation) (Result, error) {
	r.mu.Lock()
	said := r.said
	r.mu.Unlock()
	return r.lost(i, "Runtime.ExitError", "no process is left; the last wrote:\n"+said)
}

// lost ends an invocation that no process answered.
func (r *Runtime) lost(i *invocation, kind, message string) (Result, error) {
	r.mu.Lock()
	delete(r.running, i.id)
	r.mu.Unlock()
	text, err := json.Marshal(map[string]string{"errorType": kind, "errorMessage": fmt.Sprintf("RequestId: %s Error: %s", i.id, message)})
	return Result{text, "Unhandled"}, err
}

// ServeHTTP is the Invoke API: POST /2015-03-31/functions/NAME/invocations.
func (r *Runtime) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	name, ok := strings.CutPrefix(q.URL.Path, "/2015-03-31/functions/")
	name, ok2 := strings.CutSuffix(name, "/invocations")
	if !ok || !ok2 || q.Method != http.MethodPost {
		w.Header().Set("X-Amzn-ErrorType", "ResourceNotFoundException")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	payload, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	if len(payload) > 6<<20 {
		w.Header().Set("X-Amzn-ErrorType", "RequestTooLargeException")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	_, alias, _ := strings.Cut(name, ":")
	res, err := r.Invoke(q.Context(), alias, payload)
	if err != nil {
		return // the caller has gone
	}
	if res.FunctionError != "" {
		w.Header().Set("X-Amz-Function-Error", res.FunctionError)
	}
	_, _ = w.Write(res.Payload)
}
