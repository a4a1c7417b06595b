package amqp

import (
	"encoding/binary"
	"fmt"
	"math"
)

// AppendNull and its siblings append one encoded value in its most compact form.
func AppendNull(b []byte) []byte { return append(b, codeNull) }

// AppendBool appends a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, codeTrue)
	}
	return append(b, codeFalse)
}

// AppendUbyte appends a ubyte.
func AppendUbyte(b []byte, v uint8) []byte { return append(b, codeUbyte, v) }

// AppendUshort appends a ushort.
func AppendUshort(b []byte, v uint16) []byte {
	return append(b, codeUshort, byte(v>>8), byte(v))
}

// AppendUint appends a uint.
func AppendUint(b []byte, v uint32) []byte {
	switch {
	case v == 0:
		return append(b, codeUint0)
	case v < 256:
		return append(b, codeSmallUint, byte(v))
	}
	return append(b, codeUint, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// AppendUlong appends a ulong.
func AppendUlong(b []byte, v uint64) []byte {
	switch {
	case v == 0:
		return append(b, codeUlong0)
	case v < 256:
		return append(b, codeSmallUlong, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, codeUlong), v)
}

// AppendInt appends an int.
func AppendInt(b []byte, v int32) []byte {
	if v == int32(int8(v)) {
		return append(b, codeSmallInt, byte(v))
	}
	return binary.BigEndian.AppendUint32(append(b, codeInt), uint32(v))
}

// AppendLong appends a long.
func AppendLong(b []byte, v int64) []byte {
	if v == int64(int8(v)) {
		return append(b, codeSmallLong, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, codeLong), uint64(v))
}

// AppendTimestamp appends a timestamp.
func AppendTimestamp(b []byte, v Timestamp) []byte {
	return binary.BigEndian.AppendUint64(append(b, codeTimestamp), uint64(v))
}

func appendVariable(b []byte, c8, c32 byte, n int) []byte {
	if n < 256 {
		return append(b, c8, byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, c32), uint32(n))
}

// AppendBinary appends a binary.
func AppendBinary(b, v []byte) []byte {
	return append(appendVariable(b, codeBinary8, codeBinary32, len(v)), v...)
}

// AppendString appends a string; v must be valid UTF-8.
func AppendString(b []byte, v string) []byte {
	return append(appendVariable(b, codeString8, codeString32, len(v)), v...)
}

// AppendSymbol appends a symbol; v must be ASCII.
func AppendSymbol(b []byte, v Symbol) []byte {
	return append(appendVariable(b, codeSymbol8, codeSymbol32, len(v)), v...)
}

// AppendSymbols appends an array of symbols, the form of a field with
// multiple="true".
func AppendSymbols(b []byte, v []Symbol) []byte {
	wide := false
	for _, s := range v {
		wide = wide || len(s) > 255
	}
	at := len(b)
	b = openCompound(b, codeArray8)
	if wide {
		b = append(b, codeSymbol32)
	} else {
		b = append(b, codeSymbol8)
	}
	for _, s := range v {
		if wide {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		} else {
			b = append(b, byte(len(s)))
		}
		b = append(b, s...)
	}
	return closeCompound(b, at, len(v))
}

// AppendDescriptor appends the descriptor of a described type.
func AppendDescriptor(b []byte, d Descriptor) []byte {
	return AppendUlong(append(b, codeDescribed), uint64(d))
}

// openCompound reserves the 8-bit form of a list, map or array; closeCompound fills
// in size and count and widens it when it grew past what 8 bits hold.
func openCompound(b []byte, code8 byte) []byte { return append(b, code8, 0, 0) }

func closeCompound(b []byte, at, count int) []byte {
	size := len(b) - at - 2
	if size < 256 && count < 256 {
		b[at+1], b[at+2] = byte(size), byte(count)
		return b
	}
	code := b[at] + 0x10
	b = append(b, 0, 0, 0, 0, 0, 0)
	copy(b[at+9:], b[at+3:len(b)-6])
	b[at] = code
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-5))
	binary.BigEndian.PutUint32(b[at+5:], uint32(count))
	return b
}

// lister appends the fields of a described list and leaves trailing nulls out.
type lister struct {
	b          []byte
	at         int
	count      int
	keep, kept int // length and count up to the last field that is not null
}

func listOf(b []byte, d Descriptor) lister {
	b = append(b, codeDescribed, codeSmallUlong, byte(d))
	at := len(b)
	b = openCompound(b, codeList8)
	return lister{b: b, at: at, keep: len(b)}
}

func (l *lister) set(b []byte) {
	l.b = b
	l.count++
	l.keep, l.kept = len(b), l.count
}

func (l *lister) null() {
	l.b = append(l.b, codeNull)
	l.count++
}

func (l *lister) done() []byte {
	b := l.b[:l.keep]
	if l.kept == 0 {
		return append(b[:l.at], codeList0)
	}
	return closeCompound(b, l.at, l.kept)
}

func (l *lister) string(v string, present bool) {
	if present {
		l.set(AppendString(l.b, v))
	} else {
		l.null()
	}
}

func (l *lister) symbol(v Symbol) {
	if v != "" {
		l.set(AppendSymbol(l.b, v))
	} else {
		l.null()
	}
}

func (l *lister) symbols(v []Symbol) {
	switch len(v) {
	case 0:
		l.null()
	case 1:
		l.set(AppendSymbol(l.b, v[0]))
	default:
		l.set(AppendSymbols(l.b, v))
	}
}

func (l *lister) binary(v []byte) {
	if v != nil {
		l.set(AppendBinary(l.b, v))
	} else {
		l.null()
	}
}

func (l *lister) uint(v uint32) { l.set(AppendUint(l.b, v)) }
func (l *lister) uintIf(v uint32, p bool) {
	if p {
		l.uint(v)
	} else {
		l.null()
	}
}

// boolIf appends true, or null for the default false.
func (l *lister) boolIf(v bool) {
	if v {
		l.set(append(l.b, codeTrue))
	} else {
		l.null()
	}
}

func (l *lister) raw(v Raw) {
	if len(v) > 0 {
		l.set(append(l.b, v...))
	} else {
		l.null()
	}
}

// AppendValue appends v, which has one of the Go types listed at [Symbol], or
// int (as long). It returns an error for any other type; b is then unusable.
func AppendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return AppendNull(b), nil
	case bool:
		return AppendBool(b, v), nil
	case uint8:
		return AppendUbyte(b, v), nil
	case uint16:
		return AppendUshort(b, v), nil
	case uint32:
		return AppendUint(b, v), nil
	case uint64:
		return AppendUlong(b, v), nil
	case int8:
		return append(b, codeByte, byte(v)), nil
	case int16:
		return append(b, codeShort, byte(v>>8), byte(v)), nil
	case int32:
		return AppendInt(b, v), nil
	case int64:
		return AppendLong(b, v), nil
	case int:
		return AppendLong(b, int64(v)), nil
	case float32:
		return binary.BigEndian.AppendUint32(append(b, codeFloat), math.Float32bits(v)), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, codeDouble), math.Float64bits(v)), nil
	case []byte:
		return AppendBinary(b, v), nil
	case string:
		return AppendString(b, v), nil
	case Symbol:
		return AppendSymbol(b, v), nil
	case Timestamp:
		return AppendTimestamp(b, v), nil
	}
	return appendRare(b, v)
}

func appendRare(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case Char:
		return binary.BigEndian.AppendUint32(append(b, codeChar), uint32(v)), nil
	case UUID:
		return append(append(b, codeUUID), v[:]...), nil
	case Decimal32:
		return append(append(b, codeDecimal32), v[:]...), nil
	case Decimal64:
		return append(append(b, codeDecimal64), v[:]...), nil
	case Decimal128:
		return append(append(b, codeDecimal128), v[:]...), nil
	case []Symbol:
		return AppendSymbols(b, v), nil
	case Raw:
		if len(v) == 0 {
			return AppendNull(b), nil
		}
		return append(b, v...), nil
	case List:
		return appendList(b, v)
	case Map:
		return AppendMap(b, v)
	case Array:
		return appendArray(b, v)
	case Described:
		b, err := AppendValue(append(b, codeDescribed), v.Descriptor)
		if err != nil {
			return nil, err
		}
		return AppendValue(b, v.Value)
	}
	return nil, fmt.Errorf("amqp: no encoding for a value of type %T", v)
}

func appendList(b []byte, l List) ([]byte, error) {
	if len(l) == 0 {
		return append(b, codeList0), nil
	}
	at := len(b)
	b = openCompound(b, codeList8)
	var err error
	for _, e := range l {
		if b, err = AppendValue(b, e); err != nil {
			return nil, err
		}
	}
	return closeCompound(b, at, len(l)), nil
}

// AppendMap appends a map; see [AppendValue] for what its values may be.
func AppendMap(b []byte, m Map) ([]byte, error) {
	at := len(b)
	b = openCompound(b, codeMap8)
	var err error
	for _, p := range m {
		if b, err = AppendValue(b, p.Key); err != nil {
			return nil, err
		}
		if b, err = AppendValue(b, p.Value); err != nil {
			return nil, err
		}
	}
	return closeCompound(b, at, 2*len(m)), nil
}

// appendArray writes every element in the form that the array's constructor
// asks for, because all share it.
func appendArray(b []byte, a Array) ([]byte, error) {
	if !knownCode(a.Code) {
		return nil, fmt.Errorf("amqp: no array can have constructor 0x%02x", a.Code)
	}
	at := len(b)
	b = openCompound(b, codeArray8)
	if a.Desc != nil {
		var err error
		if b, err = AppendValue(append(b, codeDescribed), a.Desc); err != nil {
			return nil, err
		}
	}
	b = append(b, a.Code)
	for _, v := range a.Values {
		var err error
		if b, err = appendElement(b, a.Code, v); err != nil {
			return nil, err
		}
	}
	return closeCompound(b, at, len(a.Values)), nil
}

// appendElement appends v as the constructor code wants it, without it.
func appendElement(b []byte, code byte, v any) ([]byte, error) {
	one, err := AppendValue(nil, v)
	if err != nil {
		return nil, err
	}
	if one[0] == code {
		return append(b, one[1:]...), nil
	}
	be := binary.BigEndian
	switch v := v.(type) {
	case bool:
		if code == codeBoolean {
			return append(b, boolByte(v)), nil
		}
	case uint32:
		switch {
		case code == codeUint:
			return be.AppendUint32(b, v), nil
		case code == codeSmallUint && v < 256:
			return append(b, byte(v)), nil
		}
	case uint64:
		switch {
		case code == codeUlong:
			return be.AppendUint64(b, v), nil
		case code == codeSmallUlong && v < 256:
			return append(b, byte(v)), nil
		}
	case int32:
		if code == codeInt {
			return be.AppendUint32(b, uint32(v)), nil
		}
	case int64:
		if code == codeLong {
			return be.AppendUint64(b, uint64(v)), nil
		}
	case []byte:
		if code == codeBinary32 {
			return append(be.AppendUint32(b, uint32(len(v))), v...), nil
		}
	case string:
		if code == codeString32 {
			return append(be.AppendUint32(b, uint32(len(v))), v...), nil
		}
	case Symbol:
		if code == codeSymbol32 {
			return append(be.AppendUint32(b, uint32(len(v))), v...), nil
		}
	case List, Map, Array, []Symbol:
		return appendWide(b, code, one)
	}
	return nil, fmt.Errorf("amqp: %T does not fit an array of constructor 0x%02x", v, code)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// appendWide rewrites an encoded list, map or array of an 8-bit form for an
// array whose elements have 32-bit sizes.
func appendWide(b []byte, code byte, one []byte) ([]byte, error) {
	be := binary.BigEndian
	switch {
	case one[0] == codeList0 && code == codeList8:
		return append(b, 1, 0), nil
	case one[0] == codeList0 && code == codeList32:
		return append(b, 0, 0, 0, 4, 0, 0, 0, 0), nil
	case one[0]+0x10 == code:
		b = be.AppendUint32(b, uint32(one[1])+3)
		b = be.AppendUint32(b, uint32(one[2]))
		return append(b, one[3:]...), nil
	}
	return nil, fmt.Errorf("amqp: value of constructor 0x%02x does not fit an array of 0x%02x", one[0], code)
}
