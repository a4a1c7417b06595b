package amqp

// Go types that stand for AMQP types which Go has no own word for. The rest map
// to themselves: null nil, boolean bool, ubyte uint8, ushort uint16, uint uint32,
// ulong uint64, byte int8, short int16, int int32, long int64, float float32,
// double float64, binary []byte, string string.
type (
	// Symbol is an ASCII name from a constrained domain.
	Symbol string
	// Char is one Unicode code point, encoded as UTF-32BE.
	Char rune
	// Timestamp is milliseconds since the Unix epoch.
	Timestamp int64
	// UUID is an RFC 4122 identifier, 16 bytes.
	UUID [16]byte
	// Decimal32 is an IEEE 754-2008 decimal, 4 bytes, kept as on the wire.
	Decimal32 [4]byte
	// Decimal64 is an IEEE 754-2008 decimal, 8 bytes, kept as on the wire.
	Decimal64 [8]byte
	// Decimal128 is an IEEE 754-2008 decimal, 16 bytes, kept as on the wire.
	Decimal128 [16]byte
	// List is a sequence of values of any types.
	List []any
	// Map is an ordered sequence of pairs; order is kept as received.
	Map []Pair
	// Array is a sequence of values of one type; Values all have the same Go
	// type and, when described, the same descriptor.
	Array struct {
		Code   byte // constructor of the elements, such as 0xa3 for symbols
		Desc   any  // descriptor of the elements, or nil
		Values []any
	}
	// Described is a value with a descriptor: a ulong or a symbol by the specification.
	Described struct{ Descriptor, Value any }
	// Raw is one encoded value, kept as it came.
	Raw []byte
)

// Pair is one entry of a [Map].
type Pair struct{ Key, Value any }

// Get returns the value under a string or symbol key, or nil.
func (m Map) Get(key string) any {
	for _, p := range m {
		switch k := p.Key.(type) {
		case string:
			if k == key {
				return p.Value
			}
		case Symbol:
			if string(k) == key {
				return p.Value
			}
		}
	}
	return nil
}
