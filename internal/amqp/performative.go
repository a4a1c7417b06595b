package amqp

// Performative is the body of a frame: one of the pointer types in this
// package that have a descriptor 0x10 to 0x18 or 0x40 to 0x44.
type Performative interface {
	// Append appends the encoded performative to b.
	Append(b []byte) []byte
	decode(f *fields)
	descriptor() Descriptor
}

// DecodePerformative decodes the performative at the head of a frame body and
// returns the payload behind it (of a transfer). The result points into body.
// Errors are *DecodeError with the offset in body and the field's name.
func DecodePerformative(body []byte) (Performative, []byte, error) {
	d, err := PeekDescriptor(body)
	if err != nil {
		return nil, nil, err
	}
	p := newPerformative(d)
	if p == nil {
		return nil, nil, &DecodeError{Reason: "no performative has descriptor " + d.String()}
	}
	payload, err := DecodeInto(body, p)
	if err != nil {
		return nil, nil, err
	}
	return p, payload, nil
}

// PeekDescriptor returns the descriptor at the head of b.
func PeekDescriptor(b []byte) (Descriptor, error) {
	if len(b) > 2 && b[0] == codeDescribed && b[1] == codeSmallUlong {
		return Descriptor(b[2]), nil
	}
	r := reader{buf: b}
	d := r.descriptor()
	return d, r.err
}

// DecodeInto decodes a frame body into p, which is reset first, so that a
// caller may keep one value per kind and decode without allocating.
func DecodeInto(body []byte, p Performative) (payload []byte, err error) {
	r := reader{buf: body}
	want := p.descriptor()
	if d := r.descriptor(); r.err == nil && d != want {
		r.failAt(0, "descriptor %v where %v is expected", d, want)
	}
	f := openFields(&r)
	decodeFields(p, &f)
	f.close()
	if r.err != nil {
		return nil, r.err
	}
	return body[r.off:], nil
}

// decodeFields is p.decode without the call through the interface, which would
// move f and its reader to the heap.
func decodeFields(p Performative, f *fields) {
	switch p := p.(type) {
	case *Open:
		p.decode(f)
	case *Begin:
		p.decode(f)
	case *Attach:
		p.decode(f)
	case *Flow:
		p.decode(f)
	case *Transfer:
		p.decode(f)
	case *Disposition:
		p.decode(f)
	case *Detach:
		p.decode(f)
	case *End:
		p.decode(f)
	case *Close:
		p.decode(f)
	case *SASLMechanisms:
		p.decode(f)
	case *SASLInit:
		p.decode(f)
	case *SASLChallenge:
		p.decode(f)
	case *SASLResponse:
		p.decode(f)
	case *SASLOutcome:
		p.decode(f)
	}
}

func newPerformative(d Descriptor) Performative {
	switch d {
	case DescOpen:
		return new(Open)
	case DescBegin:
		return new(Begin)
	case DescAttach:
		return new(Attach)
	case DescFlow:
		return new(Flow)
	case DescTransfer:
		return new(Transfer)
	case DescDisposition:
		return new(Disposition)
	case DescDetach:
		return new(Detach)
	case DescEnd:
		return new(End)
	case DescClose:
		return new(Close)
	case DescSASLMechanisms:
		return new(SASLMechanisms)
	case DescSASLInit:
		return new(SASLInit)
	case DescSASLChallenge:
		return new(SASLChallenge)
	case DescSASLResponse:
		return new(SASLResponse)
	case DescSASLOutcome:
		return new(SASLOutcome)
	}
	return nil
}

// fields walks over the fields of a composite's list: absent and null fields
// leave the default.
type fields struct {
	r    *reader
	left int
	end  int
}

func openFields(r *reader) fields {
	n, end := r.list()
	return fields{r, n, end}
}

// next reports whether the next field is there and not null.
func (f *fields) next(name string) bool {
	if f.left == 0 || f.r.err != nil {
		return false
	}
	f.left--
	f.r.field = name
	if f.r.off >= f.end {
		f.r.fail("list ends before the field")
		return false
	}
	if f.r.buf[f.r.off] == codeNull {
		f.r.off++
		return false
	}
	return true
}

// must is next for a mandatory field.
func (f *fields) must(name string) bool {
	if f.next(name) {
		return true
	}
	f.r.field = name
	f.r.fail("mandatory field is missing")
	return false
}

// close skips fields that this version does not know and checks the extent.
func (f *fields) close() {
	for ; f.left > 0 && f.r.err == nil; f.left-- {
		f.r.skip()
	}
	f.r.closeAt(f.end)
	f.r.field = ""
}

func (f *fields) rawField(name string) Raw {
	if f.next(name) {
		return f.r.raw()
	}
	return nil
}

// mapField returns an encoded map, checked to be one.
func (f *fields) mapField(name string) Raw {
	if !f.next(name) {
		return nil
	}
	if c := f.r.peek(); c != codeMap8 && c != codeMap32 {
		f.r.off++
		f.r.wrong(c, "a map")
		return nil
	}
	return f.r.raw()
}

func (f *fields) stringField(name string) string {
	if f.next(name) {
		return f.r.string()
	}
	return ""
}

func (f *fields) symbolsField(name string) []Symbol {
	if f.next(name) {
		return f.r.symbols()
	}
	return nil
}

func (f *fields) uintOr(name string, def uint32) uint32 {
	if f.next(name) {
		return f.r.uint()
	}
	return def
}

func (f *fields) boolField(name string) bool {
	return f.next(name) && f.r.bool()
}
