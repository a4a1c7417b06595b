package amqp

// Open is the first frame of a connection (Part 2, section 2.7.1).
type Open struct {
	ContainerID         string
	Hostname            string
	MaxFrameSize        uint32 // bytes; 4294967295 when absent
	ChannelMax          uint16 // 65535 when absent
	IdleTimeout         uint32 // milliseconds; 0 = none
	OutgoingLocales     []Symbol
	IncomingLocales     []Symbol
	OfferedCapabilities []Symbol
	DesiredCapabilities []Symbol
	Properties          Raw // encoded map
}

func (*Open) descriptor() Descriptor { return DescOpen }

func (o *Open) decode(f *fields) {
	*o = Open{MaxFrameSize: 1<<32 - 1, ChannelMax: 1<<16 - 1}
	if f.must("open.container-id") {
		o.ContainerID = f.r.string()
	}
	o.Hostname = f.stringField("open.hostname")
	o.MaxFrameSize = f.uintOr("open.max-frame-size", o.MaxFrameSize)
	if f.next("open.channel-max") {
		o.ChannelMax = f.r.ushort()
	}
	o.IdleTimeout = f.uintOr("open.idle-time-out", 0)
	o.OutgoingLocales = f.symbolsField("open.outgoing-locales")
	o.IncomingLocales = f.symbolsField("open.incoming-locales")
	o.OfferedCapabilities = f.symbolsField("open.offered-capabilities")
	o.DesiredCapabilities = f.symbolsField("open.desired-capabilities")
	o.Properties = f.mapField("open.properties")
}

// Append implements [Performative].
func (o *Open) Append(b []byte) []byte {
	l := listOf(b, DescOpen)
	l.string(o.ContainerID, true)
	l.string(o.Hostname, o.Hostname != "")
	l.uint(o.MaxFrameSize)
	l.set(AppendUshort(l.b, o.ChannelMax))
	l.uintIf(o.IdleTimeout, o.IdleTimeout != 0)
	l.symbols(o.OutgoingLocales)
	l.symbols(o.IncomingLocales)
	l.symbols(o.OfferedCapabilities)
	l.symbols(o.DesiredCapabilities)
	l.raw(o.Properties)
	return l.done()
}

// Close ends a connection (Part 2, section 2.7.9).
type Close struct{ Error *Error }

func (*Close) descriptor() Descriptor { return DescClose }

func (c *Close) decode(f *fields) { c.Error = f.errorField("close.error") }

// Append implements [Performative].
func (c *Close) Append(b []byte) []byte {
	l := listOf(b, DescClose)
	l.error(c.Error)
	return l.done()
}

// Error is an error condition (Part 2, section 2.8.14).
type Error struct {
	Condition   Symbol
	Description string
	Info        Raw // encoded map
}

func (e *Error) Error() string {
	if e.Description == "" {
		return string(e.Condition)
	}
	return string(e.Condition) + ": " + e.Description
}

// Error conditions (Part 2, section 2.8.15 to 2.8.18).
const (
	CondInternalError         Symbol = "amqp:internal-error"
	CondNotFound              Symbol = "amqp:not-found"
	CondUnauthorizedAccess    Symbol = "amqp:unauthorized-access"
	CondDecodeError           Symbol = "amqp:decode-error"
	CondResourceLimitExceeded Symbol = "amqp:resource-limit-exceeded"
	CondNotAllowed            Symbol = "amqp:not-allowed"
	CondInvalidField          Symbol = "amqp:invalid-field"
	CondNotImplemented        Symbol = "amqp:not-implemented"
	CondResourceLocked        Symbol = "amqp:resource-locked"
	CondPreconditionFailed    Symbol = "amqp:precondition-failed"
	CondResourceDeleted       Symbol = "amqp:resource-deleted"
	CondIllegalState          Symbol = "amqp:illegal-state"
	CondFrameSizeTooSmall     Symbol = "amqp:frame-size-too-small"

	CondConnectionForced Symbol = "amqp:connection:forced"
	CondFramingError     Symbol = "amqp:connection:framing-error"
	CondRedirect         Symbol = "amqp:connection:redirect"

	CondWindowViolation  Symbol = "amqp:session:window-violation"
	CondErrantLink       Symbol = "amqp:session:errant-link"
	CondHandleInUse      Symbol = "amqp:session:handle-in-use"
	CondUnattachedHandle Symbol = "amqp:session:unattached-handle"

	CondDetachForced          Symbol = "amqp:link:detach-forced"
	CondTransferLimitExceeded Symbol = "amqp:link:transfer-limit-exceeded"
	CondMessageSizeExceeded   Symbol = "amqp:link:message-size-exceeded"
	CondLinkRedirect          Symbol = "amqp:link:redirect"
	CondStolen                Symbol = "amqp:link:stolen"
)

func (f *fields) errorField(name string) *Error {
	if !f.next(name) {
		return nil
	}
	r := f.r
	at := r.off
	if d := r.descriptor(); r.err == nil && d != DescError {
		r.failAt(at, "descriptor %v where an error is expected", d)
	}
	e := &Error{}
	in := openFields(r)
	if in.must(name + ".condition") {
		e.Condition = r.symbol()
	}
	e.Description = in.stringField(name + ".description")
	e.Info = in.mapField(name + ".info")
	in.close()
	return e
}

// Append appends the described error.
func (e *Error) Append(b []byte) []byte {
	l := listOf(b, DescError)
	l.set(AppendSymbol(l.b, e.Condition))
	l.string(e.Description, e.Description != "")
	l.raw(e.Info)
	return l.done()
}

func (l *lister) error(e *Error) {
	if e == nil {
		l.null()
		return
	}
	l.set(e.Append(l.b))
}
