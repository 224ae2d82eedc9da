"""Files as shops and benchmarks export them, each with the manifest that a user would write.

The columns are those of the programs; the products and prompts are ours.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import rig

# https://help.shopify.com/en/manual/products/import-export/using-csv, before 2025
SHOPIFY_PRODUCTS: Final = (
    "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,"
    "Option1 Value,Option1 Linked To,Option2 Name,Option2 Value,Variant SKU,Variant Grams,"
    "Variant Inventory Tracker,Variant Inventory Policy,Variant Fulfillment Service,"
    "Variant Price,Variant Compare At Price,Variant Requires Shipping,Variant Taxable,"
    "Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,SEO Title,"
    "Variant Image,Variant Weight Unit,Included / United States,Price / International,Status"
)
# The same page since 2025
SHOPIFY_PRODUCTS_2025: Final = (
    "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,"
    "Status,SKU,Barcode,Option1 name,Option1 value,Option1 Linked To,Option2 name,Option2 value,"
    "Option2 Linked To,Option3 name,Option3 value,Option3 Linked To,Price,Compare-at price,"
    "Cost per item,Charge tax,Tax code,Unit price total measure,Inventory tracker,"
    "Inventory quantity,Continue selling when out of stock,Weight value (grams),"
    "Weight unit for display,Requires shipping,Fulfillment service,Product image URL,"
    "Image position,Image alt text,Variant image URL,Gift card,SEO title,SEO description,"
    "Color (product.metafields.shopify.color-pattern),"
    "Google Shopping / Google product category,Google Shopping / Custom label 0"
)
# https://help.shopify.com/en/manual/products/inventory/setup/inventory-csv
SHOPIFY_INVENTORY: Final = (
    "Handle,Title,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Option3 Name,"
    "Option3 Value,SKU,HS Code,COO,Location,Bin name,Incoming (not editable),"
    "Unavailable (not editable),Committed (not editable),Available (not editable),"
    "On hand (current),On hand (new)"
)


_HASH: Final = re.compile(r"-[0-9a-f]{12}$")


def export(header: str, *rows: dict[str, str]) -> str:
    """Return a table with all columns of a header, as a program writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header.split(","), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Case:
    """A file, the manifest without its provider, and the prompts by key.

    A key that is made of a prompt is without its hash.
    """

    file: str
    content: str
    manifest: str
    prompts: dict[str, str]


CASES: Final = {
    "products": Case(
        "products_export.csv",
        export(
            SHOPIFY_PRODUCTS,
            {
                "Handle": "linen-apron",
                "Title": "Linen apron",
                "Body (HTML)": "<p>Stone-washed,\n<b>two</b> pockets.</p>",
                "Vendor": "Björk & Söhne",
                "Published": "true",
                "Option1 Name": "Color",
                "Option1 Value": "Sand",
                "Variant SKU": "AP-1",
                "Variant Price": "39.00",
                "Image Src": "https://cdn.shopify.com/s/files/1/apron.jpg?v=1",
                "Image Position": "1",
                "Status": "active",
            },
            {"Handle": "linen-apron", "Option1 Value": "Moss", "Variant SKU": "AP-2"},
            {
                "Handle": "linen-apron",
                "Image Src": "https://cdn.shopify.com/s/files/1/apron-2.jpg?v=1",
                "Image Position": "2",
            },
            {
                "Handle": "gift-card",
                "Title": "Gift card",
                "Option1 Name": "Denominations",
                "Option1 Value": "$10",
                "Gift Card": "true",
                "Status": "draft",
            },
        ),
        "rows:\n"
        "  file: products_export.csv\n"
        "  fill: [title, body_html, option1_name, status]\n"
        "  where: option1_value and status == 'active'\n"
        'key: "{{ handle }}/{{ option1_value }}"\n'
        "prompt: >\n"
        "  {{ title }} in {{ option1_value | lower }}. {{ body_html | striptags }}\n",
        {
            "linen-apron/Sand": "Linen apron in sand. Stone-washed, two pockets.",
            "linen-apron/Moss": "Linen apron in moss. Stone-washed, two pockets.",
        },
    ),
    "products-2025": Case(
        "products_export_1.csv",
        export(
            SHOPIFY_PRODUCTS_2025,
            {
                "Title": "Wool throw",
                "URL handle": "wool-throw",
                "Description": "<p>130 x 170 cm</p>",
                "Vendor": "毛织",
                "Tags": "bed, sofa",
                "Published on online store": "TRUE",
                "Status": "Active",
                "SKU": "TH-1",
                "Barcode": "0012345678905",
                "Option1 name": "Color",
                "Option1 value": "Oat",
                "Price": "89.00",
                "Product image URL": "https://cdn.shopify.com/s/files/1/throw.jpg",
                "Image position": "1",
            },
            {"URL handle": "wool-throw", "SKU": "TH-2", "Option1 value": "Rust"},
            {
                "URL handle": "wool-throw",
                "Product image URL": "https://cdn.shopify.com/s/files/1/throw-2.jpg",
                "Image position": "2",
            },
            {
                "Title": "Clay pot",
                "URL handle": "clay-pot",
                "Status": "Active",
                "Option1 name": "Title",
                "Option1 value": "Default Title",
            },
            {
                "Title": "Old lamp",
                "URL handle": "old-lamp",
                "Status": "Archived",
                "SKU": "LA-1",
                "Option1 value": "Default Title",
            },
        ),
        "rows:\n"
        "  file: products_export_1.csv\n"
        "  fill: [title, description, status]\n"
        "  where: option1_value and status == 'Active'\n"
        "  allow_empty: [description]\n"
        "prompt: >\n"
        "  {{ title }}\n"
        "  {%- if option1_value != 'Default Title' %} in {{ option1_value }}{% endif %}.\n"
        "  {{ description | striptags }}\n",
        {
            "TH-1": "Wool throw in Oat. 130 x 170 cm",
            "TH-2": "Wool throw in Rust. 130 x 170 cm",
            "clay-pot": "Clay pot.",
        },
    ),
    "inventory": Case(
        "inventory_export_1.csv",
        export(
            SHOPIFY_INVENTORY,
            *(
                {
                    "Handle": "oak-stool",
                    "Title": "Oak stool",
                    "Option1 Name": "Size",
                    "Option1 Value": size,
                    "SKU": sku,
                    "HS Code": "940169",
                    "COO": "SE",
                    "Location": place,
                    "On hand (current)": count,
                }
                for size, sku in (("Small", "ST-S"), ("Large", "ST-L"))
                for place, count in (("Warehouse", "12"), ("Shop, Malmö", "not stocked"))
            ),
            {
                "Handle": "oak-bench",
                "Title": "Oak bench",
                "SKU": "BE-1",
                "Location": "Warehouse",
                "On hand (current)": "not stocked",
            },
        ),
        "rows:\n"
        "  file: inventory_export_1.csv\n"
        "  where: location == 'Warehouse' and on_hand_current | int > 0\n"
        'prompt: "{{ title }}, {{ option1_name | lower }} {{ option1_value | lower }}"\n',
        {"ST-S": "Oak stool, size small", "ST-L": "Oak stool, size large"},
    ),
    # https://imagen.research.google/: 200 prompts in the columns Prompts and Category
    "drawbench": Case(
        "drawbench.csv",
        export(
            "Prompts,Category",
            {"Prompts": "Two mugs on a stool.", "Category": "Counting"},
            {"Prompts": "A stool on a mug, and a cat, too.", "Category": "Positional"},
            {"Prompts": "A sign that says 'Hello, \"World\"'.", "Category": "Text"},
            {"Prompts": "Count of Bismarck-Schönhausen eats soup.", "Category": "Marcus et al. "},
        ),
        'rows: drawbench.csv\nprompt: "{{ prompts }}"\n'
        'output: {path: "{{ category }}/{{ key }}.{{ ext }}"}\n',
        {
            "two-mugs-on-a-stool": "Two mugs on a stool.",
            "a-stool-on-a-mug-and-a-cat-too": "A stool on a mug, and a cat, too.",
            "a-sign-that-says-hello-world": "A sign that says 'Hello, \"World\"'.",
            "count-of-bismarck-schönhausen-eats-soup": "Count of Bismarck-Schönhausen eats soup.",
        },
    ),
}


def write(directory: Path, name: str, base_url: str) -> Path:
    case = CASES[name]
    (directory / case.file).write_text(case.content, encoding="utf-8")
    path = directory / f"{name}.yaml"
    provider = f"provider: {{name: local, base_url: {base_url!r}, api_key_env: CANARY_KEY}}\n"
    path.write_text(f"name: {name}\n{provider}{case.manifest}", encoding="utf-8")
    return path


def test_each_file_runs_with_its_manifest(served: rig.Endpoint, tmp_path: Path) -> None:
    paths = [write(tmp_path, name, served.base_url) for name in CASES]
    before = len(served.bill())
    rig.batchgen("run", *paths, cwd=tmp_path)
    bill = served.bill()[before:]
    rows = rig.query(
        tmp_path / "batchgen.db",
        "SELECT name, key, prompt, state FROM jobs JOIN batches ON batches.id = batch_id",
    )
    assert {row["state"] for row in rows} == {"done"}
    for name, case in CASES.items():
        found = {
            _HASH.sub("", row["key"]): row["prompt"].strip() for row in rows if row["name"] == name
        }
        assert found == case.prompts, name
    assert {place.name for place in (tmp_path / "out/drawbench").iterdir()} == {
        *("Counting", "Positional", "Text", "Marcus et al"),
    }
    assert sorted(row["prompt"] for row in bill) == sorted(row["prompt"] for row in rows)
    rig.batchgen("run", *paths, cwd=tmp_path)
    assert len(served.bill()) == before + len(bill), "an unchanged file was rebought"
