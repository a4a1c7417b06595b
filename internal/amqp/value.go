package amqp

import "math"

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
		return r.listOf(c, depth)
	case codeMap8, codeMap32:
		return r.mapOf(c, depth)
	case codeArray8, codeArray32:
		return r.arrayOf(c, depth)
	default:
		r.unknown(c)
		return nil
	}
}

// listOf reads a list whose constructor c was read.
func (r *reader) listOf(c byte, depth int) List {
	n, end := r.compound(c)
	l := make(List, 0, min(n, 64))
	for i := 0; i < n && r.err == nil; i++ {
		l = append(l, r.value(depth+1))
	}
	r.closeAt(end)
	return l
}

// mapValue reads a map with its constructor.
func (r *reader) mapValue() Map {
	c := r.byte()
	if c != codeMap8 && c != codeMap32 {
		r.wrong(c, "a map")
		return nil
	}
	return r.mapOf(c, 0)
}

// mapOf reads a map whose constructor c was read.
func (r *reader) mapOf(c byte, depth int) Map {
	n, end := r.pairs(c)
	m := make(Map, 0, min(n/2, 64))
	for i := 0; i < n/2 && r.err == nil; i++ {
		k := r.value(depth + 1)
		m = append(m, Pair{k, r.value(depth + 1)})
	}
	r.closeAt(end)
	return m
}

// arrayOf reads an array whose constructor c was read.
func (r *reader) arrayOf(c byte, depth int) Array {
	end := r.extent(c)
	n := r.count(c)
	a := Array{}
	if r.peek() == codeDescribed {
		r.off++
		a.Desc = r.value(depth + 1)
	}
	a.Code = r.byte()
	if r.err == nil && r.off > end {
		r.fail("array ends before its constructor")
	}
	if r.err == nil && !knownCode(a.Code) { // a second descriptor is not supported
		r.back()
		r.fail("array of constructor 0x%02x", a.Code)
	}
	r.checkElements(a.Code, n, end)
	if r.err != nil {
		return Array{}
	}
	a.Values = make([]any, 0, min(n, 64))
	for i := uint32(0); i < n && r.err == nil; i++ {
		a.Values = append(a.Values, r.element(a.Code, depth+1))
	}
	r.closeAt(end)
	return a
}

// checkElements refuses a count that the bytes up to end cannot hold.
func (r *reader) checkElements(code byte, n uint32, end int) {
	if r.err != nil {
		return
	}
	if code>>4 != 0x4 {
		if uint64(n) > uint64(end-r.off) {
			r.fail("array of %d elements in %d bytes", n, end-r.off)
		}
		return
	}
	if uint64(n) > uint64(maxEmpty-r.empty) {
		r.fail("array of %d elements of no width, at most %d allowed", n, maxEmpty)
		return
	}
	r.empty += int(n)
}

// element reads one array element, whose constructor stands at the array's head.
func (r *reader) element(code byte, depth int) any {
	if depth > maxDepth {
		r.fail("nested deeper than %d", maxDepth)
		return nil
	}
	return r.valueOf(code, depth)
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
