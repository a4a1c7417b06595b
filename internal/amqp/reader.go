package amqp

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// maxDepth bounds the nesting of lists, maps, arrays and descriptors. The
// specification sets no bound; nothing in use comes near it.
const maxDepth = 32

// DecodeError says where in the decoded bytes the input stopped making sense.
type DecodeError struct {
	Offset int    // from the start of the decoded value or frame body
	Field  string // such as attach.handle; "" outside of a composite
	Reason string
}

func (e *DecodeError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("amqp: %s at offset %d", e.Reason, e.Offset)
	}
	return fmt.Sprintf("amqp: %s: %s at offset %d", e.Field, e.Reason, e.Offset)
}

// reader walks over encoded values. The first error sticks: later reads return
// zero values, so callers check once at the end.
type reader struct {
	buf   []byte
	off   int
	field string
	zero  int // zero-width array elements so far: they cost memory but no input
	err   error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &DecodeError{Offset: r.off, Field: r.field, Reason: fmt.Sprintf(format, args...)}
		r.off = len(r.buf)
	}
}

func (r *reader) left() int { return len(r.buf) - r.off }

// take returns the next n bytes, or nil after an error.
func (r *reader) take(n int) []byte {
	if n < 0 || n > r.left() {
		r.fail("%d bytes wanted, %d left", n, r.left())
		return nil
	}
	b := r.buf[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

func (r *reader) byte() byte {
	if r.off >= len(r.buf) {
		r.fail("input ends")
		return 0
	}
	c := r.buf[r.off]
	r.off++
	return c
}

func (r *reader) peek() byte {
	if r.off >= len(r.buf) {
		return 0xff
	}
	return r.buf[r.off]
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// skip moves past one value.
func (r *reader) skip() { r.skipDepth(0) }

func (r *reader) skipDepth(depth int) {
	if depth > maxDepth {
		r.fail("nested deeper than %d", maxDepth)
		return
	}
	switch c := r.byte(); {
	case c == codeDescribed && r.err == nil:
		r.skipDepth(depth + 1)
		r.skipDepth(depth + 1)
	default:
		r.skipBody(c)
	}
}

// skipBody moves past the data of a value whose constructor c was read: the
// high nibble gives the width (Part 1, section 1.2).
func (r *reader) skipBody(c byte) {
	if !knownCode(c) {
		r.off--
		r.fail("unknown constructor 0x%02x", c)
		return
	}
	switch c >> 4 {
	case 0x4:
	case 0x5:
		r.take(1)
	case 0x6:
		r.take(2)
	case 0x7:
		r.take(4)
	case 0x8:
		r.take(8)
	case 0x9:
		r.take(16)
	case 0xa, 0xc, 0xe:
		r.take(int(r.byte()))
	default: // 0xb, 0xd, 0xf
		n := r.u32()
		if uint64(n) > uint64(r.left()) {
			r.fail("size %d, %d bytes left", n, r.left())
			return
		}
		r.take(int(n))
	}
}

func knownCode(c byte) bool {
	switch c {
	case codeNull, codeTrue, codeFalse, codeUint0, codeUlong0, codeList0,
		codeUbyte, codeByte, codeSmallUint, codeSmallUlong, codeSmallInt, codeSmallLong, codeBoolean,
		codeUshort, codeShort, codeUint, codeInt, codeFloat, codeChar, codeDecimal32,
		codeUlong, codeLong, codeDouble, codeTimestamp, codeDecimal64, codeDecimal128, codeUUID,
		codeBinary8, codeString8, codeSymbol8, codeBinary32, codeString32, codeSymbol32,
		codeList8, codeMap8, codeList32, codeMap32, codeArray8, codeArray32:
		return true
	}
	return false
}

// raw returns the next value with its constructor.
func (r *reader) raw() Raw {
	at := r.off
	r.skip()
	if r.err != nil {
		return nil
	}
	return Raw(r.buf[at:r.off:r.off])
}

func (r *reader) wrong(c byte, want string) {
	r.off--
	r.fail("constructor 0x%02x where %s is expected", c, want)
}

func (r *reader) bool() bool {
	switch c := r.byte(); c {
	case codeTrue:
		return true
	case codeFalse:
		return false
	case codeBoolean:
		return r.boolByte()
	default:
		r.wrong(c, "a boolean")
		return false
	}
}

func (r *reader) boolByte() bool {
	v := r.byte()
	if v > 1 {
		r.off--
		r.fail("boolean 0x%02x", v)
	}
	return v == 1
}

func (r *reader) ubyte() uint8 {
	if c := r.byte(); c != codeUbyte {
		r.wrong(c, "a ubyte")
		return 0
	}
	return r.byte()
}

func (r *reader) ushort() uint16 {
	if c := r.byte(); c != codeUshort {
		r.wrong(c, "a ushort")
		return 0
	}
	return r.u16()
}

func (r *reader) uint() uint32 {
	switch c := r.byte(); c {
	case codeUint:
		return r.u32()
	case codeSmallUint:
		return uint32(r.byte())
	case codeUint0:
		return 0
	default:
		r.wrong(c, "a uint")
		return 0
	}
}

func (r *reader) ulong() uint64 {
	switch c := r.byte(); c {
	case codeSmallUlong:
		return uint64(r.byte())
	case codeUlong:
		return r.u64()
	case codeUlong0:
		return 0
	default:
		r.wrong(c, "a ulong")
		return 0
	}
}

func (r *reader) timestamp() Timestamp {
	if c := r.byte(); c != codeTimestamp {
		r.wrong(c, "a timestamp")
		return 0
	}
	return Timestamp(r.u64())
}

// variable returns the bytes of a binary, string or symbol whose two
// constructors are c8 and c32.
func (r *reader) variable(c8, c32 byte, what string) []byte {
	switch c := r.byte(); c {
	case c8:
		return r.take(int(r.byte()))
	case c32:
		return r.sized()
	default:
		r.wrong(c, what)
		return nil
	}
}

// sized returns as many bytes as the uint32 before them says.
func (r *reader) sized() []byte {
	n := r.u32()
	if uint64(n) > uint64(r.left()) {
		r.fail("size %d, %d bytes left", n, r.left())
		return nil
	}
	return r.take(int(n))
}

func (r *reader) binary() []byte { return r.variable(codeBinary8, codeBinary32, "a binary") }

func (r *reader) string() string {
	return r.utf8(r.variable(codeString8, codeString32, "a string"))
}

func (r *reader) utf8(b []byte) string {
	if !utf8.Valid(b) {
		r.fail("string is not valid UTF-8")
		return ""
	}
	return string(b)
}

func (r *reader) symbol() Symbol {
	return r.ascii(r.variable(codeSymbol8, codeSymbol32, "a symbol"))
}

func (r *reader) ascii(b []byte) Symbol {
	for _, c := range b {
		if c > 0x7f {
			r.fail("symbol is not ASCII")
			return ""
		}
	}
	return Symbol(b)
}

// symbols reads a field with multiple="true": one symbol or an array of them.
func (r *reader) symbols() []Symbol {
	if c := r.peek(); c != codeArray8 && c != codeArray32 {
		return []Symbol{r.symbol()}
	}
	a := r.array(0)
	out := make([]Symbol, 0, len(a.Values))
	for _, v := range a.Values {
		s, ok := v.(Symbol)
		if !ok {
			r.fail("array of %T where symbols are expected", v)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// compound reads the size and count of a list or map whose constructor c was
// read, and returns the number of elements and the offset where they end. An
// element takes one byte at least, so count is bounded by what is there.
func (r *reader) compound(c byte) (count, end int) {
	var size, n uint32
	switch c {
	case codeList0:
		return 0, r.off
	case codeList8, codeMap8:
		size = uint32(r.byte())
		if r.err == nil && (size < 1 || int(size) > r.left()) {
			r.fail("size %d, %d bytes left", size, r.left())
			return 0, r.off
		}
		end = r.off + int(size)
		n = uint32(r.byte())
	default:
		size = r.u32()
		if r.err == nil && (size < 4 || uint64(size) > uint64(r.left())) {
			r.fail("size %d, %d bytes left", size, r.left())
			return 0, r.off
		}
		end = r.off + int(size)
		n = r.u32()
	}
	if r.err != nil {
		return 0, r.off
	}
	if uint64(n) > uint64(end-r.off) {
		r.fail("%d elements in %d bytes", n, end-r.off)
		return 0, r.off
	}
	return int(n), end
}

// list reads the constructor of a list and its extent.
func (r *reader) list() (count, end int) {
	switch c := r.byte(); c {
	case codeList0, codeList8, codeList32:
		return r.compound(c)
	default:
		r.wrong(c, "a list")
		return 0, r.off
	}
}

// mapHeader reads the constructor of a map and its extent.
func (r *reader) mapHeader() (count, end int) {
	switch c := r.byte(); c {
	case codeMap8, codeMap32:
		n, e := r.compound(c)
		if n%2 != 0 {
			r.fail("map with %d elements: a key has no value", n)
			return 0, r.off
		}
		return n, e
	default:
		r.wrong(c, "a map")
		return 0, r.off
	}
}

// closeAt checks that the elements of a compound ended where its size says.
func (r *reader) closeAt(end int) {
	if r.err == nil && r.off != end {
		r.fail("elements end %d bytes from where the size says", end-r.off)
	}
}

// descriptor reads 0x00 and the descriptor behind it.
func (r *reader) descriptor() Descriptor {
	if c := r.byte(); c != codeDescribed {
		r.wrong(c, "a described type")
		return 0
	}
	switch r.peek() {
	case codeSymbol8, codeSymbol32:
		s := r.variable(codeSymbol8, codeSymbol32, "a symbol")
		d, ok := descriptorByName[string(s)]
		if !ok && r.err == nil {
			r.fail("unknown descriptor %.64q", s)
		}
		return d
	default:
		return Descriptor(r.ulong())
	}
}

// value reads any value into the Go types listed at [Symbol].
func (r *reader) value(depth int) any {
	if depth > maxDepth {
		r.fail("nested deeper than %d", maxDepth)
		return nil
	}
	c := r.byte()
	if r.err != nil {
		return nil
	}
	if c == codeDescribed {
		d := r.value(depth + 1)
		return Described{d, r.value(depth + 1)}
	}
	return r.valueOf(c, depth)
}

// valueOf reads the data of a value whose constructor c was read.
func (r *reader) valueOf(c byte, depth int) any {
	switch c {
	case codeNull:
		return nil
	case codeTrue:
		return true
	case codeFalse:
		return false
	case codeBoolean:
		return r.boolByte()
	case codeUbyte:
		return r.byte()
	case codeUshort:
		return r.u16()
	case codeUint:
		return r.u32()
	case codeSmallUint:
		return uint32(r.byte())
	case codeUint0:
		return uint32(0)
	case codeUlong:
		return r.u64()
	case codeSmallUlong:
		return uint64(r.byte())
	case codeUlong0:
		return uint64(0)
	case codeByte:
		return int8(r.byte())
	case codeShort:
		return int16(r.u16())
	case codeInt:
		return int32(r.u32())
	case codeSmallInt:
		return int32(int8(r.byte()))
	case codeLong:
		return int64(r.u64())
	case codeSmallLong:
		return int64(int8(r.byte()))
	case codeFloat:
		return math.Float32frombits(r.u32())
	case codeDouble:
		return math.Float64frombits(r.u64())
	case codeChar:
		return Char(r.u32())
	case codeTimestamp:
		return Timestamp(r.u64())
	case codeBinary8:
		return r.take(int(r.byte()))
	case codeBinary32:
		return r.sized()
	case codeString8:
		return r.utf8(r.take(int(r.byte())))
	case codeString32:
		return r.utf8(r.sized())
	case codeSymbol8:
		return r.ascii(r.take(int(r.byte())))
	case codeSymbol32:
		return r.ascii(r.sized())
	case codeArray8, codeArray32:
		r.off--
		return r.array(depth)
	}
	return r.wideOrCompound(c, depth)
}

func (r *reader) wideOrCompound(c byte, depth int) any {
	switch c {
	case codeDecimal32:
		var d Decimal32
		copy(d[:], r.take(len(d)))
		return d
	case codeDecimal64:
		var d Decimal64
		copy(d[:], r.take(len(d)))
		return d
	case codeDecimal128:
		var d Decimal128
		copy(d[:], r.take(len(d)))
		return d
	case codeUUID:
		var u UUID
		copy(u[:], r.take(len(u)))
		return u
	case codeList0, codeList8, codeList32:
		n, end := r.compound(c)
		l := make(List, 0, min(n, 64))
		for i := 0; i < n && r.err == nil; i++ {
			l = append(l, r.value(depth+1))
		}
		r.closeAt(end)
		return l
	case codeMap8, codeMap32:
		r.off--
		return r.mapValue(depth)
	default:
		r.off--
		r.fail("unknown constructor 0x%02x", c)
		return nil
	}
}

func (r *reader) mapValue(depth int) Map {
	n, end := r.mapHeader()
	m := make(Map, 0, min(n/2, 64))
	for i := 0; i < n/2 && r.err == nil; i++ {
		k := r.value(depth + 1)
		m = append(m, Pair{k, r.value(depth + 1)})
	}
	r.closeAt(end)
	return m
}

// array reads an array with its constructor. Elements of zero width (null,
// true, list0, ...) take no bytes, so their number is bounded by the length of
// the whole input.
func (r *reader) array(depth int) Array {
	var a Array
	if depth > maxDepth {
		r.fail("nested deeper than %d", maxDepth)
		return a
	}
	var size, n uint32
	wide := r.byte() == codeArray32
	if wide {
		size = r.u32()
	} else {
		size = uint32(r.byte())
	}
	if r.err != nil || uint64(size) > uint64(r.left()) {
		r.fail("array of size %d, %d bytes left", size, r.left())
		return a
	}
	end := r.off + int(size)
	if wide {
		n = r.u32()
	} else {
		n = uint32(r.byte())
	}
	if r.peek() == codeDescribed {
		r.off++
		a.Desc = r.value(depth + 1)
	}
	a.Code = r.byte()
	if r.err != nil || r.off > end {
		r.fail("array ends before its constructor")
		return a
	}
	if a.Code == codeDescribed || !knownCode(a.Code) {
		r.fail("array of constructor 0x%02x", a.Code)
		return a
	}
	limit := uint64(end - r.off)
	if a.Code>>4 == 0x4 {
		limit = uint64(max(0, max(len(r.buf), 64)-r.zero))
		r.zero += int(min(uint64(n), limit))
	}
	if uint64(n) > limit {
		r.fail("array of %d elements in %d bytes", n, end-r.off)
		return a
	}
	a.Values = make([]any, 0, min(n, 64))
	for i := uint32(0); i < n && r.err == nil; i++ {
		a.Values = append(a.Values, r.element(a.Code, depth))
	}
	r.closeAt(end)
	return a
}

// element reads one array element, whose constructor stands at the array's head.
func (r *reader) element(code byte, depth int) any {
	switch code {
	case codeMap8, codeMap32:
		n, end := r.compound(code)
		if n%2 != 0 {
			r.fail("map with %d elements: a key has no value", n)
			return nil
		}
		m := make(Map, 0, min(n/2, 64))
		for i := 0; i < n/2 && r.err == nil; i++ {
			k := r.value(depth + 1)
			m = append(m, Pair{k, r.value(depth + 1)})
		}
		r.closeAt(end)
		return m
	case codeArray8, codeArray32:
		return r.nestedArray(code, depth)
	default:
		return r.valueOf(code, depth+1)
	}
}

func (r *reader) nestedArray(code byte, depth int) any {
	at := r.off
	// An inner array has no constructor of its own: put one in front.
	width := 1
	size := 0
	if code == codeArray32 {
		width = 4
		size = int(r.u32())
	} else {
		size = int(r.byte())
	}
	if r.err != nil || size > r.left() {
		r.fail("array of size %d, %d bytes left", size, r.left())
		return nil
	}
	inner := make([]byte, 0, 1+width+size)
	inner = append(append(inner, code), r.buf[at:at+width+size]...)
	ir := reader{buf: inner, field: r.field, zero: r.zero}
	a := ir.array(depth + 1)
	r.zero = ir.zero
	if ir.err != nil {
		r.fail("inner array: %v", ir.err)
		return nil
	}
	r.take(size)
	return a
}

// DecodeValue decodes one value and returns what is left of b. Byte slices in
// it point into b.
func DecodeValue(b []byte) (v any, rest []byte, err error) {
	r := reader{buf: b}
	v = r.value(0)
	if r.err != nil {
		return nil, nil, r.err
	}
	return v, b[r.off:], nil
}
