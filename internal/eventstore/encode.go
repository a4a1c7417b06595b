package eventstore

import (
	"encoding/json"
	"errors"
	"strconv"
)

// Spans and Runs are lists of a partition's state. Their JSON is one array of numbers, each
// position less the end of what is before it: a partition that is consumed in another order than
// its own has thousands of them.
type (
	Spans []Span
	Runs  []Run
)

// MarshalJSON implements [json.Marshaler]: two numbers for each span.
func (list Spans) MarshalJSON() ([]byte, error) {
	e := encoder{b: make([]byte, 0, 2+8*len(list))}
	for _, s := range list {
		e.span(s)
	}
	return e.end(), nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (list *Spans) UnmarshalJSON(b []byte) error {
	d, n, err := decode(b, 2)
	if err != nil || n == 0 {
		*list = nil
		return err
	}
	*list = make(Spans, n)
	for i := range *list {
		(*list)[i] = d.span()
	}
	return nil
}

// MarshalJSON implements [json.Marshaler]: six numbers for each run.
func (list Runs) MarshalJSON() ([]byte, error) {
	e := encoder{b: make([]byte, 0, 2+24*len(list))}
	before := int64(0)
	for _, r := range list {
		e.span(Span{r.From, r.To})
		e.number(int64(r.Attempt))
		e.number(int64(r.Failed))
		e.number(r.Next - before)
		e.number(map[bool]int64{true: 1}[r.Out])
		before = r.Next
	}
	return e.end(), nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (list *Runs) UnmarshalJSON(b []byte) error {
	d, n, err := decode(b, 6)
	if err != nil || n == 0 {
		*list = nil
		return err
	}
	*list = make(Runs, n)
	before := int64(0)
	for i := range *list {
		s := d.span()
		r := Run{From: s.From, To: s.To, Attempt: uint16(d.next()), Failed: uint16(d.next()), Next: before + d.next(), Out: d.next() != 0}
		(*list)[i], before = r, r.Next
	}
	return nil
}

// encoder writes an array. Differences wrap around, and so do the sums of them.
type encoder struct {
	b      []byte
	before uint64
}

func (e *encoder) number(n int64) {
	if e.b = append(e.b, ','); len(e.b) == 1 {
		e.b[0] = '['
	}
	e.b = strconv.AppendInt(e.b, n, 10)
}

func (e *encoder) span(s Span) {
	e.number(int64(s.From - e.before))
	e.number(int64(s.To - s.From))
	e.before = s.To
}

func (e *encoder) end() []byte {
	if len(e.b) == 0 {
		e.b = append(e.b, '[')
	}
	return append(e.b, ']')
}

// decoder takes the numbers of an array one by one.
type decoder struct {
	numbers []int64
	before  uint64
}

// decode reads an array of so many numbers for each entry, and returns how many entries there are.
func decode(b []byte, each int) (*decoder, int, error) {
	d := new(decoder)
	if err := json.Unmarshal(b, &d.numbers); err != nil {
		return nil, 0, err
	}
	if len(d.numbers)%each != 0 {
		return nil, 0, errors.New("a list of a partition's state is cut off")
	}
	return d, len(d.numbers) / each, nil
}

func (d *decoder) next() int64 {
	n := d.numbers[0]
	d.numbers = d.numbers[1:]
	return n
}

func (d *decoder) span() Span {
	from := d.before + uint64(d.next())
	d.before = from + uint64(d.next())
	return Span{from, d.before}
}
