package amqp

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of lists, maps, arrays and descriptors. The
// specification sets no bound; nothing in use comes near it.
const maxDepth = 32

// maxEmpty bounds the array elements of zero width (null, true, list0, ...) in
// one decoded value: they take memory, but no bytes of the input.
const maxEmpty = 1024

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
	empty int // zero-width array elements so far
	err   error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &DecodeError{Offset: r.off, Field: r.field, Reason: fmt.Sprintf(format, args...)}
	}
	r.off = len(r.buf)
}

// failAt is fail for a value that began at offset at.
func (r *reader) failAt(at int, format string, args ...any) {
	if r.err == nil {
		r.off = at
	}
	r.fail(format, args...)
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
		r.unknown(c)
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
	case 0xa:
		r.take(int(r.byte()))
	case 0xb:
		r.sized()
	default: // 0xc to 0xf: lists, maps and arrays
		r.off = r.extent(c)
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

// back undoes the reading of one byte, so that an error names its offset.
func (r *reader) back() {
	if r.err == nil {
		r.off--
	}
}

func (r *reader) wrong(c byte, want string) {
	r.back()
	r.fail("constructor 0x%02x where %s is expected", c, want)
}

func (r *reader) unknown(c byte) {
	r.back()
	r.fail("unknown constructor 0x%02x", c)
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
		r.back()
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
		r.failAt(r.off-len(b), "string is not valid UTF-8")
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
			r.failAt(r.off-len(b), "symbol is not ASCII")
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
	at := r.off
	a := r.arrayOf(r.byte(), 0)
	out := make([]Symbol, 0, len(a.Values))
	for _, v := range a.Values {
		s, ok := v.(Symbol)
		if !ok || a.Desc != nil {
			r.failAt(at, "array of constructor 0x%02x where symbols are expected", a.Code)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// extent reads the size of a list, map or array whose constructor c was read,
// and returns the offset where it ends, which has room for the count at least.
func (r *reader) extent(c byte) (end int) {
	size, width := uint32(0), 1
	if c&0x10 == 0 {
		size = uint32(r.byte())
	} else {
		size, width = r.u32(), 4
	}
	if r.err == nil && (size < uint32(width) || uint64(size) > uint64(r.left())) {
		r.fail("size %d, %d bytes left", size, r.left())
	}
	if r.err != nil {
		return r.off
	}
	return r.off + int(size)
}

// count reads the count behind the size.
func (r *reader) count(c byte) uint32 {
	if c&0x10 == 0 {
		return uint32(r.byte())
	}
	return r.u32()
}

// compound reads the size and count of a list or map whose constructor c was
// read, and returns the number of elements and the offset where they end. An
// element takes one byte at least, so count is bounded by what is there.
func (r *reader) compound(c byte) (count, end int) {
	if c == codeList0 {
		return 0, r.off
	}
	end = r.extent(c)
	n := r.count(c)
	if r.err == nil && uint64(n) > uint64(end-r.off) {
		r.fail("%d elements in %d bytes", n, end-r.off)
	}
	if r.err != nil {
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
		return r.pairs(c)
	default:
		r.wrong(c, "a map")
		return 0, r.off
	}
}

// pairs is compound for a map: count is the number of keys and values together.
func (r *reader) pairs(c byte) (count, end int) {
	count, end = r.compound(c)
	if count%2 != 0 {
		r.fail("map with %d elements: a key has no value", count)
		return 0, r.off
	}
	return count, end
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
		if !ok {
			r.failAt(r.off-len(s), "unknown descriptor %.64q", s)
		}
		return d
	default:
		return Descriptor(r.ulong())
	}
}
