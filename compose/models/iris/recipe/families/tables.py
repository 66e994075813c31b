"""Receipts with a total, and small tables of numbers."""
from PIL import ImageDraw

from canvas import SIDE, Canvas, tint
from families.reading import write
from turns import Ask, number

GOODS = ["tea", "milk", "egg", "pie", "rice", "fish", "cake", "soup", "ham", "bread", "corn",
         "beer", "wine", "jam", "nuts"]
GOODS_CHINESE = ["茶", "面", "米", "鱼", "牛", "羊", "果", "书", "花", "包"]


def receipt(rng, assets):
    """Two or three goods with their prices, and the total."""
    count = rng.choice([2, 2, 3])
    in_chinese = rng.random() < 0.3
    goods = rng.sample(GOODS_CHINESE if in_chinese else GOODS, count)
    prices = [rng.randint(1, 20) for _ in goods]
    total = sum(prices)
    canvas = Canvas(rng, "white", plain=True)
    size = rng.randint(15, 18) if count == 2 else rng.randint(14, 16)
    font = (assets.chinese_font if in_chinese else assets.latin_font)(rng, size)
    step = (SIDE - 8) / (count + 1)
    rgb = tint(rng, (25, 25, 25), 20)
    for row, (name, price) in enumerate(zip([*goods, "总" if in_chinese else "Total"],
                                            [*prices, total])):
        y = 4 + (row + 0.5) * step + 0.36 * size
        write(rng, canvas, name, font, 3, y, "black", rgb=rgb, on_line=True)
        text = str(price)
        write(rng, canvas, text, font, SIDE - 8 - font.getlength(text), y, "black", rgb=rgb,
              on_line=True)
    y = 4 + count * step
    ImageDraw.Draw(canvas.image).line((4, y, SIDE - 4, y), fill=rgb)
    index = rng.randrange(count)
    dearest = goods[prices.index(max(prices))]
    asks = [
        Ask("total", "number", [("What is the total?", str(total)),
                                ("How much is it in all?", f"It is {total}.")],
            [("总共多少钱？", str(total))], (str(total),) * 2, 2, "total"),
        Ask("price", "number", [(f"How much is the {goods[index]}?", str(prices[index])),
                                (f"What does the {goods[index]} cost?",
                                 f"It costs {prices[index]}.")],
            [(f"{goods[index]}多少钱？", str(prices[index]))], (str(prices[index]),) * 2, 2,
            "price"),
        Ask("rows", "number", [("How many items are on the receipt?", str(count))],
            [("有几样东西？", f"{number(count)[1]}样。")], (str(count),) * 2, 0.8, "rows"),
        Ask("document", "document", [("What kind of document is this?", "It is a receipt.")],
            [("这是什么？", "这是收据。")], ("receipt", "收据"), 0.6, "document"),
    ]
    if prices.count(max(prices)) == 1:
        asks.append(Ask("dearest", "text", [("What costs the most?", f"The {dearest}.")],
                        [("什么最贵？", f"{dearest}。")], (dearest,) * 2, 1, "dearest"))
    return canvas, asks


def table(rng, assets):
    """Two or three rows and columns of numbers below 100, rows by number, columns by letter."""
    rows, columns = rng.choice([(2, 2), (2, 3), (3, 2), (3, 3)])
    values = [[rng.randint(0, 9 if columns > 2 else 50) for _ in range(columns)]
              for _ in range(rows)]
    canvas = Canvas(rng, "white", plain=True)
    drawing = ImageDraw.Draw(canvas.image)
    font = assets.latin_font(rng, rng.randint(15, 19))
    left, top = 20, 22
    width, height = (SIDE - left - 2) / columns, (SIDE - top - 2) / rows
    if rng.random() < 0.6:
        drawing.rectangle((left, 2, SIDE - 3, top), fill=tint(rng, (200, 215, 235), 15))
    grey = tint(rng, (140, 140, 140), 30)
    for row in range(rows + 1):
        y = top + row * height
        drawing.line((4, y, SIDE - 3, y), fill=grey)
    for column in range(columns + 1):
        x = left + column * width
        drawing.line((x, 4, x, SIDE - 3), fill=grey)
    for column in range(columns):
        x = left + (column + 0.5) * width
        write(rng, canvas, "ABC"[column], font, x - 7, 3, "black")
    for row in range(rows):
        y = top + (row + 0.5) * height + 0.36 * font.size
        write(rng, canvas, str(row + 1), font, 5, y, "black", on_line=True)
        for column in range(columns):
            text = str(values[row][column])
            x = left + (column + 0.5) * width - font.getlength(text) / 2 - 2
            write(rng, canvas, text, font, x, y, "black", on_line=True)
    asks = []
    for _ in range(2):
        row, column = rng.randrange(rows), rng.randrange(columns)
        value, name = str(values[row][column]), "ABC"[column]
        asks.append(Ask("cell", "number",
                        [(f"What is in column {name}, row {row + 1}?", value),
                         (f"Read cell {name}{row + 1}.", value)],
                        [(f"{name}列第{row + 1}行是多少？", value)], (value,) * 2, 2,
                        f"cell {row} {column}"))
    asks += [
        Ask("rows", "number", [("How many rows are there?", str(rows))],
            [("有几行？", f"{number(rows)[1]}行。")], (str(rows),) * 2, 0.8, "rows"),
        Ask("columns", "number", [("How many columns are there?", str(columns))],
            [("有几列？", f"{number(columns)[1]}列。")], (str(columns),) * 2, 0.8, "columns"),
        Ask("document", "document", [("What kind of document is this?", "It is a table.")],
            [("这是什么？", "这是表格。")], ("table", "表格"), 0.5, "document"),
    ]
    return canvas, asks


def draw(rng, assets):
    return receipt(rng, assets) if rng.random() < 0.6 else table(rng, assets)
