package command

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

const (
	// maxTold is how many rows one message to an adapter has.
	maxTold = 200
	// toldAgain is how long a message that nobody took waits, and maxToldTries how often.
	toldAgain    = 200 * time.Millisecond
	maxToldTries = 100
)

// outbox is what the processes of one name are yet to hear of their rows, the
// last word on each device.
type outbox struct {
	rows    map[key]verdict
	sending bool // a message is on its way, or waits for its time
	timer   *time.Timer
	closed  bool
}

// verdict says that the row of at is superseded, or no longer is.
type verdict struct {
	at         int64
	superseded bool
}

func (b *outbox) stop() {
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// tell notes what the process of an entry is to hear; unlock sends it.
func (d *Directory) tell(e *entry) {
	b := d.told[e.source.instance]
	if b == nil {
		b = &outbox{rows: map[key]verdict{}}
		d.told[e.source.instance] = b
	}
	b.rows[key{e.tenant.id, e.device}] = verdict{e.at, e.superseded}
}

// unlock unlocks the directory after a change, and has those told whom it concerns.
func (d *Directory) unlock() {
	for instance, b := range d.told {
		switch {
		case d.sources[instance] == nil || d.closed:
			b.stop()
			delete(d.told, instance)
		case !b.sending:
			b.sending = true
			go d.send(instance, b, 0) // whoever changed the directory may hold what it needs
		}
	}
	d.mu.Unlock()
}

// supersededMessage is the body of what an adapter is told.
type supersededMessage struct {
	Superseded [][3]any `json:"superseded,omitempty"`
	Restored   [][3]any `json:"restored,omitempty"`
}

// send sends some of what an outbox has. One message is under way at a time, so
// that the last word is heard last.
func (d *Directory) send(instance string, b *outbox, tries int) {
	d.mu.Lock()
	if len(b.rows) == 0 || b.closed || d.closed {
		b.sending = false
		if len(b.rows) == 0 && d.told[instance] == b {
			delete(d.told, instance)
		}
		d.mu.Unlock()
		return
	}
	sent := map[key]verdict{}
	var body supersededMessage
	for k, v := range b.rows {
		row := [3]any{k.tenant, k.device, v.at}
		if v.superseded {
			body.Superseded = append(body.Superseded, row)
		} else {
			body.Restored = append(body.Restored, row)
		}
		sent[k] = v
		if len(sent) == maxTold {
			break
		}
	}
	d.mu.Unlock()
	message, err := toldMessage(&body)
	if err != nil {
		d.o.Logger.Error("message to an adapter does not encode", "adapter", instance, "err", err)
		message = nil
	}
	done := func(state amqp.Raw) { d.heard(instance, b, sent, tries, outcomeOf(state)) }
	if message == nil {
		done(amqp.AppendRejected(nil, nil))
		return
	}
	d.o.Send(internal+instance, message, done)
}

// heard is told what became of a message. One that nobody took is sent again: the
// adapter has no credit to give for a moment.
func (d *Directory) heard(instance string, b *outbox, sent map[key]verdict, tries int, got outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait, next := time.Duration(0), 0
	if got == released && tries < maxToldTries {
		wait, next = toldAgain, tries+1
	} else {
		maps.DeleteFunc(b.rows, func(k key, v verdict) bool { return sent[k] == v })
	}
	if b.closed || d.closed {
		return
	}
	b.timer = time.AfterFunc(wait, func() { d.send(instance, b, next) })
}

func toldMessage(body *supersededMessage) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	m := amqp.Message{Properties: &amqp.Properties{To: "device_directory", Subject: "superseded", ContentType: "application/json"},
		Data: [][]byte{data}}
	return m.Append(nil)
}
