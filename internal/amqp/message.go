package amqp

import "time"

// Header is the header section (Part 3, section 3.2.1).
type Header struct {
	Durable       bool
	Priority      uint8 // meaningful with HasPriority; 4 is the default
	HasPriority   bool
	TTL           uint32 // milliseconds, meaningful with HasTTL
	HasTTL        bool
	FirstAcquirer bool
	DeliveryCount uint32
}

// Properties is the properties section (Part 3, section 3.2.4). MessageID and
// CorrelationID are nil, string, uint64, UUID or []byte.
type Properties struct {
	MessageID          any
	UserID             []byte
	To                 string
	Subject            string
	ReplyTo            string
	CorrelationID      any
	ContentType        Symbol
	ContentEncoding    Symbol
	AbsoluteExpiryTime Timestamp // 0 = absent
	CreationTime       Timestamp // 0 = absent
	GroupID            string
	GroupSequence      uint32
	HasGroupSequence   bool
	ReplyToGroupID     string
}

// Message is a whole message. Exactly one of Data, Sequence and Value is used;
// Value is meaningful when HasValue is set, so that a null value can be told
// from none.
type Message struct {
	Header                *Header
	DeliveryAnnotations   Map
	MessageAnnotations    Map
	Properties            *Properties
	ApplicationProperties Map
	Data                  [][]byte
	Sequence              []List
	Value                 any
	HasValue              bool
	Footer                Map
}

// TimestampOf converts t to milliseconds since the epoch.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMilli()) }

// Time converts to a time in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// Append appends the described header.
func (h *Header) Append(b []byte) []byte {
	l := listOf(b, DescHeader)
	l.boolIf(h.Durable)
	if h.HasPriority {
		l.set(AppendUbyte(l.b, h.Priority))
	} else {
		l.null()
	}
	l.uintIf(h.TTL, h.HasTTL)
	l.boolIf(h.FirstAcquirer)
	l.uintIf(h.DeliveryCount, h.DeliveryCount != 0)
	return l.done()
}

// Append appends the described properties; it fails on an id of a type that
// message-id cannot have.
func (p *Properties) Append(b []byte) ([]byte, error) {
	l := listOf(b, DescProperties)
	if err := l.id("message-id", p.MessageID); err != nil {
		return nil, err
	}
	l.binary(p.UserID)
	l.string(p.To, p.To != "")
	l.string(p.Subject, p.Subject != "")
	l.string(p.ReplyTo, p.ReplyTo != "")
	if err := l.id("correlation-id", p.CorrelationID); err != nil {
		return nil, err
	}
	l.symbol(p.ContentType)
	l.symbol(p.ContentEncoding)
	l.timestamp(p.AbsoluteExpiryTime)
	l.timestamp(p.CreationTime)
	l.string(p.GroupID, p.GroupID != "")
	l.uintIf(p.GroupSequence, p.HasGroupSequence)
	l.string(p.ReplyToGroupID, p.ReplyToGroupID != "")
	return l.done(), nil
}

func (l *lister) id(name string, v any) error {
	switch v := v.(type) {
	case nil:
		l.null()
	case string:
		l.set(AppendString(l.b, v))
	case uint64:
		l.set(AppendUlong(l.b, v))
	case UUID:
		l.set(append(append(l.b, codeUUID), v[:]...))
	case []byte:
		l.set(AppendBinary(l.b, v))
	default:
		return &DecodeError{Field: "properties." + name, Reason: "type is none of string, ulong, uuid, binary"}
	}
	return nil
}

func (l *lister) timestamp(t Timestamp) {
	if t != 0 {
		l.set(AppendTimestamp(l.b, t))
	} else {
		l.null()
	}
}

// Append appends the encoded message.
func (m *Message) Append(b []byte) ([]byte, error) {
	var err error
	if m.Header != nil {
		b = m.Header.Append(b)
	}
	if b, err = appendMapSection(b, DescDeliveryAnnotations, m.DeliveryAnnotations); err != nil {
		return nil, err
	}
	if b, err = appendMapSection(b, DescMessageAnnotations, m.MessageAnnotations); err != nil {
		return nil, err
	}
	if m.Properties != nil {
		if b, err = m.Properties.Append(b); err != nil {
			return nil, err
		}
	}
	if b, err = appendMapSection(b, DescApplicationProperties, m.ApplicationProperties); err != nil {
		return nil, err
	}
	for _, d := range m.Data {
		b = AppendBinary(AppendDescriptor(b, DescData), d)
	}
	for _, s := range m.Sequence {
		if b, err = appendList(AppendDescriptor(b, DescSequence), s); err != nil {
			return nil, err
		}
	}
	if m.HasValue {
		if b, err = AppendValue(AppendDescriptor(b, DescValue), m.Value); err != nil {
			return nil, err
		}
	}
	return appendMapSection(b, DescFooter, m.Footer)
}

func appendMapSection(b []byte, d Descriptor, m Map) ([]byte, error) {
	if len(m) == 0 {
		return b, nil
	}
	return AppendMap(AppendDescriptor(b, d), m)
}

// DecodeMessage decodes a whole message. Byte slices in it point into b.
func DecodeMessage(b []byte) (*Message, error) {
	m := &Message{}
	r := reader{buf: b}
	last := DescHeader - 1
	for r.off < len(b) && r.err == nil {
		at := r.off
		d := r.descriptor()
		repeatable := d == last && (d == DescData || d == DescSequence)
		mixed := last >= DescData && d >= DescData && d != DescFooter && !repeatable
		if r.err == nil && (d < DescHeader || d > DescFooter || d <= last && !repeatable || mixed) {
			r.misplaced(at, d, last)
		}
		last = d
		m.section(&r, d)
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

func (m *Message) section(r *reader, d Descriptor) {
	if r.err != nil {
		return
	}
	switch d {
	case DescHeader:
		m.Header = decodeHeader(r)
	case DescDeliveryAnnotations:
		m.DeliveryAnnotations = r.mapValue()
	case DescMessageAnnotations:
		m.MessageAnnotations = r.mapValue()
	case DescProperties:
		m.Properties = decodeProperties(r)
	case DescApplicationProperties:
		m.ApplicationProperties = r.mapValue()
	case DescData:
		m.Data = append(m.Data, r.binary())
	case DescSequence:
		if c := r.peek(); c != codeList0 && c != codeList8 && c != codeList32 {
			r.off++
			r.wrong(c, "a list")
			return
		}
		l, _ := r.value(0).(List)
		m.Sequence = append(m.Sequence, l)
	case DescValue:
		m.Value, m.HasValue = r.value(0), true
	case DescFooter:
		m.Footer = r.mapValue()
	}
}

func decodeHeader(r *reader) *Header {
	f := openFields(r)
	h := &Header{Durable: f.boolField("header.durable")}
	if f.next("header.priority") {
		h.Priority, h.HasPriority = r.ubyte(), true
	}
	if f.next("header.ttl") {
		h.TTL, h.HasTTL = r.uint(), true
	}
	h.FirstAcquirer = f.boolField("header.first-acquirer")
	h.DeliveryCount = f.uintOr("header.delivery-count", 0)
	f.close()
	return h
}

func decodeProperties(r *reader) *Properties {
	f := openFields(r)
	p := &Properties{MessageID: f.idField("properties.message-id")}
	if f.next("properties.user-id") {
		p.UserID = r.binary()
	}
	p.To = f.stringField("properties.to")
	p.Subject = f.stringField("properties.subject")
	p.ReplyTo = f.stringField("properties.reply-to")
	p.CorrelationID = f.idField("properties.correlation-id")
	if f.next("properties.content-type") {
		p.ContentType = r.symbol()
	}
	if f.next("properties.content-encoding") {
		p.ContentEncoding = r.symbol()
	}
	if f.next("properties.absolute-expiry-time") {
		p.AbsoluteExpiryTime = r.timestamp()
	}
	if f.next("properties.creation-time") {
		p.CreationTime = r.timestamp()
	}
	p.GroupID = f.stringField("properties.group-id")
	if f.next("properties.group-sequence") {
		p.GroupSequence, p.HasGroupSequence = r.uint(), true
	}
	p.ReplyToGroupID = f.stringField("properties.reply-to-group-id")
	f.close()
	return p
}

func (f *fields) idField(name string) any {
	if !f.next(name) {
		return nil
	}
	at := f.r.off
	switch v := f.r.value(0).(type) {
	case string, uint64, UUID, []byte:
		return v
	default:
		f.r.failAt(at, "type %T is none of string, ulong, uuid, binary", v)
		return nil
	}
}
