/*
 * ringlet's DSDT: what cannot be found out by asking the hardware. dsdt.h is this file compiled (see its first line);
 * tests/unit/test_devmodel_acpi.c compiles it again and compares, where iasl is installed.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 1, "RINGLT", "RINGLET", 0x00000001)
{
    Name (\_S5, Package () { 0x05, 0x05, 0x00, 0x00 }) // ACPI_S5_TYP in devices.h

    Name (\SERN, 0x04) // serial ports present; acpi_tables.c stores the board's number here

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, Zero)
            Name (_BBN, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x0000, 0x00FF, 0, 0x0100)
                IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0CF7, 0, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x000A0000, 0x000BFFFF, 0, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xF0000000, 0xFEBFFFFF, 0, 0x0EC00000)
            })
            Name (_PRT, Package () {}) // no device, no interrupt
        }

        Device (PIC)
        {
            Name (_HID, EisaId ("PNP0000"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0020, 0x0020, 0x01, 0x02)
                IO (Decode16, 0x00A0, 0x00A0, 0x01, 0x02)
                IO (Decode16, 0x04D0, 0x04D0, 0x01, 0x02)
                IRQNoFlags () {2}
            })
        }

        Device (TIMR)
        {
            Name (_HID, EisaId ("PNP0100"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0040, 0x0040, 0x01, 0x04)
                IRQNoFlags () {0}
            })
        }

        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
                IRQNoFlags () {8}
            })
        }

        Device (KBD)
        {
            Name (_HID, EisaId ("PNP0303"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                IRQNoFlags () {1}
            })
        }

        Device (FPU)
        {
            Name (_HID, EisaId ("PNP0C04"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x00F0, 0x00F0, 0x01, 0x02)
                IRQNoFlags () {13}
            })
        }

        Device (SYSR) // ports nobody else may take
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0061, 0x0061, 0x01, 0x01)
                IO (Decode16, 0x0080, 0x0080, 0x01, 0x10)
                IO (Decode16, 0x0092, 0x0092, 0x01, 0x01)
                IO (Decode16, 0x00ED, 0x00ED, 0x01, 0x01)
                IO (Decode16, 0x0600, 0x0600, 0x01, 0x10)
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                IRQNoFlags () {4}
            })
        }

        Device (COM2)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 2)
            Method (_STA) { If (LLess (SERN, 2)) { Return (Zero) } Return (0x0F) }
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x02F8, 0x02F8, 0x01, 0x08)
                IRQNoFlags () {3}
            })
        }

        Device (COM3)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 3)
            Method (_STA) { If (LLess (SERN, 3)) { Return (Zero) } Return (0x0F) }
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03E8, 0x03E8, 0x01, 0x08)
                IRQNoFlags () {4}
            })
        }

        Device (COM4)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 4)
            Method (_STA) { If (LLess (SERN, 4)) { Return (Zero) } Return (0x0F) }
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x02E8, 0x02E8, 0x01, 0x08)
                IRQNoFlags () {3}
            })
        }
    }
}
