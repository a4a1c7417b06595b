package http

import (
	"fmt"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// delivery is a command that a request has been given. done is called once the
// answer is written, or cannot be.
type delivery struct {
	*adapters.Command
	requestID string // "" = one-way
	done      func(error)
}

// newDelivery makes what an answer needs of a command. Errors are ErrInvalid for what
// no header can hold.
func newDelivery(c *adapters.Command, done func(error)) (delivery, error) {
	d := delivery{Command: c, done: done}
	if strings.ContainsFunc(c.Name, isControl) || strings.ContainsFunc(c.ContentType, isControl) {
		return d, iot.Errorf(iot.ErrInvalid, "the command's name or content type has control characters, which HTTP headers cannot have")
	}
	if c.OneWay() {
		return d, nil
	}
	id, err := c.RequestID()
	if err != nil {
		return d, iot.Errorf(iot.ErrInvalid, "malformed command: %v", err)
	}
	d.requestID = giveOut(id)
	return d, nil
}

// answerFor is how long a client may take to read an answer.
const answerFor = 45 * time.Second

// extend gives the answer to a request that waits the time that others have.
func extend(w nethttp.ResponseWriter, ttd int) {
	// Only a writer that is none of the server's has no deadline to move.
	_ = nethttp.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Duration(ttd)*time.Second + answerFor))
}

// command answers with a command (contract: adapters 7.5) and reports whether all of
// it was written. behalf says that who waits is a gateway for one of its devices.
func command(w nethttp.ResponseWriter, d delivery, behalf bool) bool {
	h := w.Header()
	h.Set("hono-command", d.Name)
	if d.requestID != "" {
		h.Set("hono-cmd-req-id", d.requestID)
	}
	if behalf || d.Gateway != "" && d.Gateway != d.Device {
		h.Set("hono-cmd-target-device", string(d.Device))
	}
	h.Set("Content-Length", strconv.Itoa(len(d.Payload)))
	if len(d.Payload) > 0 {
		h.Set("Content-Type", contentTypeOf(d.Command))
	}
	w.WriteHeader(nethttp.StatusOK)
	_, err := w.Write(d.Payload)
	if err == nil {
		err = nethttp.NewResponseController(w).Flush()
	}
	if err != nil {
		err = fmt.Errorf("%w: the answer to the device: %v", iot.ErrUnavailable, err)
	}
	d.done(err)
	return err == nil
}

func contentTypeOf(c *adapters.Command) string {
	if c.ContentType != "" {
		return c.ContentType
	}
	return "application/octet-stream"
}
