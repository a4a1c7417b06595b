package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// What a function is said to be.
const (
	Region  = "eu-central-1"
	Account = "000000000000"
)

// InitTimeout is how long an instance may take until it asks for its first invocation.
const InitTimeout = 10 * time.Second

// MaxPayloadBytes bounds payloads and results of synchronous invocations.
const MaxPayloadBytes = 6 << 20

// Config says what is run. Name, Program and Timeout are required.
type Config struct {
	Name    string   // of the function
	Aliases []string // by which it may be invoked
	Program string   // the bootstrap
	Dir     string   // the task's folder, where the program starts
	Env     []string // what the deployment sets; the variables of the runtime are added
	Timeout time.Duration

	Instances int           // at most at a time, 0 = 10; what exceeds them is throttled
	Idle      time.Duration // after which an instance without work ends, 0 = 5 min
	Output    io.Writer     // of the function; nil = nowhere
	Log       *slog.Logger
}

// Result is how an invocation ended.
type Result struct {
	Payload       []byte
	FunctionError string // "" = the function answered
}

// Start tells of one instance.
type Start struct {
	At   time.Time
	Init time.Duration // from the start of the process until it asked for work
	// First is the time from the start of the process until its first answer, 0 before.
	First time.Duration
}

// Errors of Invoke.
var (
	ErrThrottled = errors.New("too many invocations at once")
	ErrNotFound  = errors.New("no such function or alias")
	ErrClosed    = errors.New("the host is closed")
)

// Host runs one function. Safe for concurrent use.
type Host struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	closed    bool
	number    int
	count     int // of invocations
	instances map[*instance]bool
	free      []*instance // the last is the one that worked last
	starts    []*Start
	work      sync.WaitGroup
}

// New checks cfg; the first invocation starts the first instance.
func New(cfg Config) (*Host, error) {
	if cfg.Name == "" || cfg.Program == "" || cfg.Timeout <= 0 {
		return nil, errors.New("lambda host: name, program and timeout are required")
	}
	if cfg.Instances <= 0 {
		cfg.Instances = 10
	}
	if cfg.Idle <= 0 {
		cfg.Idle = 5 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Host{cfg: cfg, log: cfg.Log, instances: map[*instance]bool{}}, nil
}

// ARN is that of a function, by an alias or "".
func ARN(function, alias string) string {
	arn := fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", Region, Account, function)
	if alias != "" {
		arn += ":" + alias
	}
	return arn
}

// ARN is that of the function, by an alias or "".
func (h *Host) ARN(alias string) string { return ARN(h.cfg.Name, alias) }

// Instances is how many there are now.
func (h *Host) Instances() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.instances)
}

// Invocations is how many there were until now.
func (h *Host) Invocations() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Starts tells of all instances until now.
func (h *Host) Starts() []Start {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Start, len(h.starts))
	for i, s := range h.starts {
		out[i] = *s
	}
	return out
}

// Invoke runs the function by an alias and waits for its result. The invocation goes
// on when ctx ends.
func (h *Host) Invoke(ctx context.Context, alias string, payload []byte) (Result, error) {
	if alias != "" && !slices.Contains(h.cfg.Aliases, alias) {
		return Result{}, ErrNotFound
	}
	i, inv, err := h.take(alias, payload)
	if err != nil {
		return Result{}, err
	}
	result := make(chan Result, 1)
	go func() {
		defer h.work.Done()
		result <- i.run(inv)
	}()
	select {
	case r := <-result:
		return r, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// take finds a free instance or starts one, and adds to h.work.
func (h *Host) take(alias string, payload []byte) (*instance, *invocation, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, ErrClosed
	}
	h.count++
	inv := &invocation{id: fmt.Sprintf("%08x-0000-4000-8000-%012x", h.count, time.Now().UnixMilli()), arn: h.ARN(alias), payload: payload, done: make(chan Result, 1)}
	if n := len(h.free); n > 0 {
		i := h.free[n-1]
		h.free = h.free[:n-1]
		i.idle.Stop()
		i.busy.Store(true)
		h.work.Add(1)
		return i, inv, nil
	}
	if len(h.instances) >= h.cfg.Instances {
		return nil, nil, ErrThrottled
	}
	h.number++
	start := &Start{At: time.Now()}
	i, err := h.start(h.number, start)
	if err != nil {
		return nil, nil, err
	}
	i.busy.Store(true)
	h.instances[i] = true
	h.starts = append(h.starts, start)
	h.work.Add(1)
	return i, inv, nil
}

// release is called by an instance that asks for work again.
func (h *Host) release(i *instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || !h.instances[i] {
		return
	}
	h.free = append(h.free, i)
	i.process.Freeze()
	i.idle = time.AfterFunc(h.cfg.Idle, func() { h.retire(i) })
}

// retire ends an instance that is free.
func (h *Host) retire(i *instance) {
	h.mu.Lock()
	at := slices.Index(h.free, i)
	if at >= 0 {
		h.free = slices.Delete(h.free, at, at+1)
	}
	h.mu.Unlock()
	if at >= 0 {
		h.log.Info("instance ended: no work", "instance", i.number)
		h.remove(i)
	}
}

// remove ends an instance.
func (h *Host) remove(i *instance) {
	i.end()
	h.mu.Lock()
	delete(h.instances, i)
	h.mu.Unlock()
}

// ToZero ends all instances that are free now.
func (h *Host) ToZero() {
	h.mu.Lock()
	free := slices.Clone(h.free)
	h.mu.Unlock()
	for _, i := range free {
		h.retire(i)
	}
}

// Kill ends all instances, and says how many were at work: their invocations fail. The next
// invocation starts another one.
func (h *Host) Kill() (working int) {
	h.mu.Lock()
	all := slices.Collect(maps.Keys(h.instances))
	h.instances, h.free = map[*instance]bool{}, nil
	for _, i := range all {
		i.idle.Stop()
		if i.busy.Load() {
			working++
		}
	}
	h.mu.Unlock()
	for _, i := range all {
		i.end()
	}
	return working
}

// Close ends all instances, also those at work, and waits for them.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	all := h.instances
	h.instances, h.free = map[*instance]bool{}, nil
	h.mu.Unlock()
	for i := range all {
		i.end()
	}
	h.work.Wait()
}
