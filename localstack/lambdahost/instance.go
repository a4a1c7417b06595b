package lambdahost

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/localstack/process"
)

// invocation is a payload on its way.
type invocation struct {
	id, arn  string
	payload  []byte
	deadline time.Time
	done     chan Result
}

// instance is a process and the Runtime API that it alone sees.
type instance struct {
	h       *Host
	number  int
	process *process.Process
	api     *http.Server
	work    chan *invocation
	busy    atomic.Bool // has an invocation
	idle    *time.Timer // guarded by the host
	ending  sync.Once

	mu      sync.Mutex
	start   *Start // guarded by the host
	asked   bool
	running *invocation
	failed  string // what the function said about its start
}

// start starts an instance. h is locked.
func (h *Host) start(number int, s *Start) (*instance, error) {
	i := &instance{h: h, number: number, work: make(chan *invocation), start: s, idle: time.NewTimer(time.Hour)}
	i.idle.Stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", i.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) { i.finish(w, r, "") })
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) { i.finish(w, r, "Unhandled") })
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", i.initError)
	i.api = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go i.api.Serve(ln)
	env := append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + ln.Addr().String(), "_HANDLER=bootstrap", "LAMBDA_TASK_ROOT=" + h.cfg.Dir,
		"AWS_LAMBDA_FUNCTION_NAME=" + h.cfg.Name, "AWS_LAMBDA_FUNCTION_VERSION=1", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_REGION=" + Region, "AWS_DEFAULT_REGION=" + Region, "PATH=/usr/local/bin:/usr/bin:/bin", "TZ=:UTC",
	}, h.cfg.Env...)
	i.process, err = process.Start(process.Options{Name: "bootstrap", Path: h.cfg.Program, Env: env, Dir: h.cfg.Dir, Output: h.cfg.Output})
	if err != nil {
		i.api.Close()
		return nil, err
	}
	h.log.Info("instance started", "instance", number, "pid", i.process.PID())
	return i, nil
}

func (i *instance) end() {
	i.ending.Do(func() {
		i.process.Kill() // Lambda asks nobody who has no extension
		i.api.Close()
	})
}

// next hands the next invocation to the process, which is frozen until there is one.
func (i *instance) next(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	first := !i.asked
	i.asked = true
	i.mu.Unlock()
	if first {
		i.h.mu.Lock()
		i.start.Init = time.Since(i.start.At)
		i.h.mu.Unlock()
	} else {
		i.h.release(i)
	}
	select {
	case <-r.Context().Done():
	case inv := <-i.work:
		inv.deadline = time.Now().Add(i.h.cfg.Timeout)
		i.mu.Lock()
		i.running = inv
		i.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(inv.deadline.UnixMilli()))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", inv.arn)
		_, _ = w.Write(inv.payload)
	}
}

func (i *instance) finish(w http.ResponseWriter, r *http.Request, functionError string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxPayloadBytes+1))
	if err != nil {
		return
	}
	i.mu.Lock()
	inv := i.running
	if inv != nil && inv.id == r.PathValue("id") {
		i.running = nil
	} else {
		inv = nil
	}
	i.mu.Unlock()
	if inv == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if len(body) > MaxPayloadBytes {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		inv.done <- failure("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (6291556 bytes).")
		return
	}
	i.h.mu.Lock()
	if i.start.First == 0 {
		i.start.First = time.Since(i.start.At)
	}
	i.h.mu.Unlock()
	inv.done <- Result{body, functionError}
	w.WriteHeader(http.StatusAccepted)
}

func (i *instance) initError(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
	i.mu.Lock()
	i.failed = string(body)
	i.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
}

// run has the instance do one invocation. It ends an instance that does not.
func (i *instance) run(inv *invocation) Result {
	defer i.busy.Store(false)
	i.process.Thaw()
	limit := time.NewTimer(InitTimeout)
	defer limit.Stop()
	select {
	case i.work <- inv:
	case <-i.process.Done():
		return i.broken(inv, "Runtime.ExitError", "RequestId: %s Error: Runtime exited with error", inv.id)
	case <-limit.C:
		return i.broken(inv, "Sandbox.Timedout", "RequestId: %s Error: Task timed out after %.2f seconds", inv.id, InitTimeout.Seconds())
	}
	limit.Reset(i.h.cfg.Timeout)
	select {
	case r := <-inv.done:
		return r
	case <-i.process.Done():
		return i.broken(inv, "Runtime.ExitError", "RequestId: %s Error: Runtime exited with error", inv.id)
	case <-limit.C:
		return i.broken(inv, "Sandbox.Timedout", "RequestId: %s Error: Task timed out after %.2f seconds", inv.id, i.h.cfg.Timeout.Seconds())
	}
}

func (i *instance) broken(inv *invocation, kind, format string, args ...any) Result {
	i.mu.Lock()
	said := i.failed
	i.running = nil
	i.mu.Unlock()
	i.h.log.Error("instance lost", "instance", i.number, "invocation", inv.id, "error", kind, "exit", i.process.Exit(), "said", said)
	i.h.remove(i)
	return failure(kind, fmt.Sprintf(format, args...))
}

func failure(kind, message string) Result {
	text, err := json.Marshal(map[string]string{"errorType": kind, "errorMessage": message})
	if err != nil {
		text = []byte("{}")
	}
	return Result{text, "Unhandled"}
}
