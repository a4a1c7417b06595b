package management

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/status"
)

// drainTime is how long what a client still sends is read and dropped after a
// request ended early, so that the client gets to read why.
const drainTime = 5 * time.Second

// result is one line of the answer.
type result struct {
	Line     int          `json:"line"`
	ID       iot.DeviceID `json:"id,omitempty"`
	Tenant   iot.TenantID `json:"tenant-id,omitempty"`
	Status   int          `json:"status"`
	ETag     string       `json:"etag,omitempty"`
	AuthID   string       `json:"auth-id,omitempty"`
	Password string       `json:"password,omitempty"`
	Error    string       `json:"error,omitempty"`
}

// summary is the last line of the answer.
type summary struct {
	Done        bool   `json:"done"`
	Items       int    `json:"items"`
	Succeeded   int    `json:"succeeded"`
	Failed      int    `json:"failed"`
	Status      int    `json:"status,omitempty"`
	Error       string `json:"error,omitempty"`
	NotDoneFrom int    `json:"not-done-from,omitempty"`
}

// transfer is one bulk request or import: a goroutine reads items, the
// handler's own has them done, a third one writes the results.
type transfer struct {
	server  *server
	tenant  iot.TenantID
	body    io.Reader // limited, with deadlines
	raw     *patient
	w       http.ResponseWriter
	rc      *http.ResponseController
	summary summary
	buffer  []byte
}

func newTransfer(s *server, w http.ResponseWriter, body io.Reader, tenant iot.TenantID) *transfer {
	t := &transfer{server: s, tenant: tenant, w: w, rc: http.NewResponseController(w)}
	limit := s.options.MaxBulk
	t.raw = &patient{r: body, rc: t.rc}
	t.body = &limited{t.raw, limit, limit}
	return t
}

// patient gives each read of a body its own deadline, instead of one for all.
type patient struct {
	r  io.Reader
	rc *http.ResponseController

	mu   sync.Mutex
	last bool
}

func (p *patient) Read(b []byte) (int, error) {
	p.mu.Lock()
	if !p.last {
		p.rc.SetReadDeadline(time.Now().Add(streamTimeout)) // where there is a connection
	}
	p.mu.Unlock()
	return p.r.Read(b)
}

// endWithin gives the reads from now on one deadline together.
func (p *patient) endWithin(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = true
	p.rc.SetReadDeadline(time.Now().Add(d))
}

// decoder makes an item of a text, or errSkip of one that is none.
type decoder func(text []byte) (registry.BulkItem, error)

// errSkip is what a decoder returns for a text that is no item.
var errSkip = errors.New("no item")

// run has all items done and writes the answer. first are results before
// theirs. complete, when all was read, says whether something was missing.
func (t *transfer) run(ctx context.Context, items splitter, decode decoder, complete func() error, first ...result) error {
	t.rc.EnableFullDuplex() // HTTP/1.1 has to be asked for it; without it results come at the end
	out, q := newSpool(t.w), newQueue()
	var reading sync.WaitGroup
	reading.Go(func() { t.read(items, decode, q) })
	err := t.work(ctx, q, out, first)
	if err == nil && complete != nil {
		err = complete()
	}
	t.finish(out, err)
	gone := out.close()
	q.stop()
	if gone != nil || err != nil {
		t.raw.endWithin(drainTime)
	}
	reading.Wait()
	t.rc.SetReadDeadline(time.Time{}) // the connection may serve another request
	if gone != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// read takes the body apart until its end, or until nobody takes its items.
func (t *transfer) read(items splitter, decode decoder, q *queue) {
	defer func() {
		if v := recover(); v != nil { // it would end the process
			q.end(fmt.Errorf("panic: %v", v))
		}
	}()
	for {
		number, text, bad, err := items.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			q.end(bodyError(err))
			break
		}
		w := work{line: number, size: len(text), err: bad}
		if bad == nil {
			w.item, w.err = decode(text)
		}
		if errors.Is(w.err, errSkip) {
			continue
		}
		if !q.put(w) {
			break
		}
	}
	io.Copy(io.Discard, t.raw) // until it ends, or the time for that
}

// bodyError says what it means when a body cannot be read.
func bodyError(err error) error {
	var said *iot.Error
	if err == nil || errors.As(err, &said) {
		return err
	}
	return iot.Errorf(iot.ErrInvalid, "the body could not be read to its end")
}

// work has portions of items done. An error says why it ended early.
func (t *transfer) work(ctx context.Context, q *queue, out *spool, first []result) (err error) {
	defer func() {
		if v := recover(); v != nil { // the other goroutines have to be ended, too
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	for _, r := range first {
		t.add(r)
	}
	if err := t.flush(out); err != nil {
		return err
	}
	for {
		portion, err := q.take()
		if len(portion) == 0 {
			return err
		}
		if err := t.apply(ctx, portion); err != nil {
			t.summary.NotDoneFrom = portion[0].line
			return err
		}
		if err := t.flush(out); err != nil {
			return err
		}
	}
}

// apply has one portion done and adds its results.
func (t *transfer) apply(ctx context.Context, portion []work) error {
	items := make([]registry.BulkItem, 0, len(portion))
	for i := range portion {
		if portion[i].err == nil {
			items = append(items, portion[i].item)
		}
	}
	var done []registry.BulkResult
	if len(items) > 0 {
		var err error
		if done, err = t.server.registry.ApplyDevices(ctx, t.tenant, items); err != nil {
			return err
		}
	}
	for i, n := 0, 0; i < len(portion); i++ {
		w := &portion[i]
		if w.err != nil {
			t.add(failedResult(w.line, w.item.ID, w.err))
			continue
		}
		r := &done[n]
		n++
		if r.Err != nil {
			t.add(failedResult(w.line, r.ID, r.Err))
			continue
		}
		code := http.StatusNoContent
		if w.item.Op == registry.CreateOp {
			code = http.StatusCreated
		}
		t.add(result{Line: w.line, ID: r.ID, Status: code, ETag: r.Version, AuthID: r.AuthID, Password: r.Password})
	}
	return nil
}

func failedResult(line int, id iot.DeviceID, err error) result {
	return result{Line: line, ID: id, Status: status.HTTP(err), Error: status.Text(err)}
}

func (t *transfer) add(r result) {
	t.summary.Items++
	if r.Error == "" {
		t.summary.Succeeded++
	} else {
		t.summary.Failed++
	}
	t.line(r)
}

func (t *transfer) line(v any) {
	b, err := api.Encode(v)
	if err != nil { // strings and numbers can always be encoded
		panic(err)
	}
	t.buffer = append(append(t.buffer, b...), '\n')
}

func (t *transfer) flush(out *spool) error {
	_, err := out.Write(t.buffer)
	t.buffer = t.buffer[:0]
	return err
}

// finish adds the last line.
func (t *transfer) finish(out *spool, err error) {
	if t.summary.Done = err == nil; err != nil {
		t.summary.Status, t.summary.Error = status.HTTP(err), status.Text(err)
		if t.summary.Status >= http.StatusInternalServerError && !errors.Is(err, errGone) {
			t.server.options.Log.Error("bulk request ended early", "tenant", t.tenant, "line", t.summary.NotDoneFrom, "err", err)
		}
	}
	t.line(t.summary)
	t.flush(out) // who is gone needs no last line
}
