package adapters

import (
	"errors"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The directions of command messages, which are a tag of their figures.
const (
	directionOneWay   = 0
	directionRequest  = 1
	directionResponse = 2
	directions        = 3
)

var directionTags = [directions]string{directionOneWay: "one-way", directionRequest: "request", directionResponse: "response"}

// commandStatus sorts the outcome of a command by who is at fault.
func commandStatus(err error) int {
	switch {
	case err == nil:
		return statusForwarded
	case errors.Is(err, iot.ErrInvalid), errors.Is(err, iot.ErrForbidden), errors.Is(err, iot.ErrTooLarge), errors.Is(err, iot.ErrQuota):
		return statusUnprocessable
	}
	return statusUndeliverable
}

// commanded counts a command that was handed to a device at start and ended with
// err; see [CommandHandler].
func (m *Meter) commanded(tenant *events.TenantObject, c *Command, start time.Time, err error) {
	direction := directionRequest
	if c.OneWay() {
		direction = directionOneWay
	}
	m.countCommand(tenant, direction, commandStatus(err), len(c.Payload), start)
}

// countCommand counts a command or a response to one.
func (m *Meter) countCommand(tenant *events.TenantObject, direction, outcome, payload int, start time.Time) {
	if m == nil {
		return
	}
	size := meteredSize(payload, tenant.MinimumMessageSize)
	took := time.Since(start)
	now := start.Sub(m.made) + took
	s, t := m.lock(tenant.ID, now)
	defer s.mu.Unlock()
	f := t.commands[direction][outcome]
	if f == nil {
		f = &uploadFigures{}
		t.commands[direction][outcome] = f
	}
	f.duration.record(now, took.Seconds())
	f.payload.record(now, size)
}
